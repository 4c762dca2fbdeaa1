"""``slicewatch check``."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest


def test_a_sound_project_has_no_problems(cli: Callable, project: Path) -> None:
    """A sound project prints coverage per slice and no problems."""
    answer = cli("check", "--config", project)
    assert (answer.code, answer.err) == (0, "")
    assert "no problems: `slicewatch train` can start" in answer.out
    assert all(name in answer.out for name in ("short_comment", "cheap", "no_price"))


def test_every_problem_is_listed(cli: Callable, project: Path, table_file: Path) -> None:
    """Misspelt columns, blank labels, a bad template and a faulty function are a line each, with code 2."""
    frame = pd.read_csv(table_file)
    frame.loc[[3, 7], "class"] = None
    frame.to_csv(table_file, index=False)
    project.write_text(project.read_text().replace("country: category", "county: category\n  shop: number"))
    templates = project.with_name("slices.yaml")
    templates.write_text(templates.read_text() + "  - {name: again, regex: {field: country, pattern: 'a(?=b)'}}\n")
    with project.with_name("slices.py").open("a") as file:
        file.write("\n\n@slicing_function()\ndef careless(x):\n    return x['Price [eur]'] > 100\n")
    answer = cli("check", "--config", project, "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["ok"]) == (2, False)
    assert answer.err.count("slicewatch: error: ") == len(told["problems"]) == answer.err.count("\n")
    found = "\n".join(told["problems"])
    assert "no column 'county'" in found
    assert "did you mean 'country'?" in found
    assert "'shop'" in found
    assert "2 of 240 rows have no 'class', first in row 3" in found
    assert "'a(?=b)'" in found
    assert "careless is not total" in found


def test_problems_of_settings_are_in_the_document_too(cli: Callable, project: Path) -> None:
    """With --json, problems of the settings are in the document too."""
    project.write_text(project.read_text() + "lable: x\ncolour: y\n")
    answer = cli("check", "--config", project, "--json")
    assert answer.code == 2
    assert len(json.loads(answer.out)["problems"]) == answer.err.count("\n") == 2


def test_the_label_is_no_feature(cli: Callable, project: Path) -> None:
    """A label among the features is a problem."""
    project.write_text(project.read_text().replace("country: category", "class: category"))
    assert "'class' is the label" in cli("check", "--config", project).err


def test_two_functions_of_one_name_are_a_problem(cli: Callable, project: Path) -> None:
    """Two functions with one name are a problem, also in different files."""
    project.with_name("slices.yaml").write_text("slices:\n  - {name: short_comment, missing: {field: country}}\n")
    assert "short_comment" in cli("check", "--config", project).err


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.rename(columns={"country": "land"}), "no column 'country'"),
        (lambda rows: rows.rename(columns={"Price [eur]": "Price (eur)"}), "did you mean 'Price (eur)'?"),
        (lambda rows: rows.rename(columns={"class": "klass"}), "did you mean 'klass'?"),
        (lambda rows: rows.assign(**{"class": "kept"}), "kept"),
        (lambda rows: rows.assign(**{"class": rows["class"].where(rows.index > 4)}), "first in row 0"),
        (lambda rows: rows.assign(**{"class": rows["class"].where(rows.index != 9, "  ")}), "first in row 9"),
        (lambda rows: rows.assign(**{"Price [eur]": "cheap"}), "cheap"),
        (lambda rows: rows.head(0), "header"),
    ],
)
def test_bad_tables(
    cli: Callable, project: Path, table_file: Path, command: str, change: Callable, message: str
) -> None:
    """A table that cannot be trained on ends check and train with code 2, no traceback and nothing stored."""
    change(pd.read_csv(table_file)).to_csv(table_file, index=False)
    answer = cli(command, "--config", project)
    assert answer.code == 2
    assert message in answer.err
    assert all(line.startswith("slicewatch: error: ") for line in answer.err.splitlines())
    assert "unexpected" not in answer.err
    assert not project.with_name(".slicewatch").exists()


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file "),
        (b"", "is empty"),
        (b"a,b\n\xff\xfe,1\n", "line 2"),
        (b"a,b\n1,2,3\n", "orders.csv"),
        (b"a,a\n1,2\n", "'a'"),
    ],
)
def test_bad_files(
    cli: Callable, project: Path, table_file: Path, command: str, content: bytes | None, message: str
) -> None:
    """An absent, empty, wrongly encoded or ragged file is named with its error."""
    table_file.unlink()
    if content is not None:
        table_file.write_bytes(content)
    answer = cli(command, "--config", project)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert message in answer.err


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("file", "text", "messages"),
    [
        (
            "slices.yaml",
            "slices:\n  - name: a\n    regx: {field: country, pattern: x}\n",
            ["slices.yaml", "line 3", "regx"],
        ),
        (
            "slices.yaml",
            "slices:\n  - {name: a, regex: {field: country, pattern: 'a(?=b)'}}\n",
            ["slices.yaml", "line 2", "a(?=b)"],
        ),
        ("slices.yaml", "slices:\n  - {name: a, missing: {field: land}}\n", ["'land'"]),
        ("slices.yaml", "slices: [\n", ["slices.yaml"]),
        ("slices.py", "def f(:\n", ["slices.py", "line 1"]),
        ("slices.py", "import nothing_like_this\n", ["slices.py", "nothing_like_this"]),
        ("slices.py", "1 / 0\n", ["slices.py", "ZeroDivisionError"]),
        ("slices.py", "x = 1\n", ["slices.py"]),
    ],
)
def test_bad_functions(cli: Callable, project: Path, command: str, file: str, text: str, messages: list[str]) -> None:
    """An unreadable file of functions is named, with the line if there is one."""
    project.with_name(file).write_text(text)
    answer = cli(command, "--config", project)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert all(message in answer.err for message in messages)


def test_the_sample_is_drawn_from_all_rows(cli: Callable, project: Path, table_file: Path) -> None:
    """In a long sorted table, the coverage on the sample is near the true one, and the output has both sizes."""
    rows = pd.concat([pd.read_csv(table_file)] * 10).sort_values("country", ignore_index=True)
    rows.to_csv(table_file, index=False)
    slices = project.with_name("slices.yaml")
    slices.write_text("slices: [{name: danish, one_of: {field: country, values: [dk]}}]\n")
    project.write_text(re.sub("functions:.*", "functions: slices.yaml", project.read_text()))
    shown = json.loads(cli("check", "--config", project, "--json").out)
    assert (shown["rows"], shown["sampled"]) == (2400, 1000)
    lower, upper = shown["slices"][0]["coverage_interval"]
    assert lower < (rows["country"] == "dk").mean() < upper
    assert "Slices on a random sample of 1,000 of 2,400" in cli("check", "--config", project).out


def test_a_template_on_values_of_another_type_is_a_problem(cli: Callable, project: Path) -> None:
    """A numeric comparison of text is reported before training."""
    slices = project.with_name("slices.yaml")
    slices.write_text("slices: [{name: above, compare: {field: country, above: 12}}]\n")
    project.write_text(re.sub("functions:.*", "functions: slices.yaml", project.read_text()))
    answer = cli("check", "--config", project)
    assert answer.code == 2
    assert "must be a number, got str" in answer.err


def test_a_slice_may_not_have_a_columns_name(cli: Callable, project: Path) -> None:
    """A slice with the name of a column is a problem."""
    slices = project.with_name("slices.yaml")
    slices.write_text("slices: [{name: country, missing: {field: country}}]\n")
    project.write_text(re.sub("functions:.*", "functions: slices.yaml", project.read_text()))
    answer = cli("check", "--config", project)
    assert answer.code == 2
    assert "slice 'country' has the name of a column" in answer.err


def test_a_misspelt_variable_is_warned_of(cli: Callable, project: Path) -> None:
    """A variable that is nearly a setting causes a warning; other variables do not."""
    answer = cli("check", "--config", project, SLICEWATCH_LEARNER_EPOCH="3", SLICEWATCH_COLOUR="x")
    assert "SLICEWATCH_LEARNER_EPOCH is not a setting; did you mean SLICEWATCH_LEARNER_EPOCHS?" in answer.err
    assert "COLOUR" not in answer.err


def test_labelling_functions_are_checked_and_named(cli: Callable, project: Path) -> None:
    """Labeling functions are listed apart, may have the name of a column, and must keep their contract."""
    python = project.with_name("slices.py")
    python.write_text(python.read_text().replace("import slicing", "import labeling_function, slicing") + LABELER)
    answer = cli("check", "--config", project)
    assert (answer.code, answer.err) == (0, "")
    assert "monitored live but not slices of the model: country" in answer.out
    python.write_text(python.read_text().replace("x.country == 'no'", "x['Price [eur]'] > 1"))
    assert "country is not total" in cli("check", "--config", project).err


LABELER = """

@labeling_function()
def country(x):
    return 1 if x.country == 'no' else -1
"""


def test_problems_of_the_service_are_found_before_it_starts(cli: Callable, project: Path) -> None:
    """An open address, an unknown class and column, and a broken store are reported together."""
    project.write_text(
        project.read_text()
        + "serve: {host: 10.0.0.5}\nmonitor: {positive: returnt}\nlog: {features: [contry]}\nstore: broken.db\n"
    )
    project.with_name("broken.db").write_text("no database " * 200)
    answer = cli("check", "--config", project)
    assert answer.code == 2
    for said in ("serve.insecure", "did you mean 'returned'?", "did you mean 'country'?", "store: "):
        assert said in answer.err


def test_a_store_of_a_later_version_is_found_before_the_service_starts(cli: Callable, project: Path) -> None:
    """A store of a later version is a problem that names its schema."""
    store = project.parent / ".slicewatch/store.sqlite3"
    assert cli("migrate", "--config", project).code == 0
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    answer = cli("check", "--config", project)
    assert (answer.code, "schema 9999" in answer.err) == (2, True)


def comments(rows: int = 200) -> pd.DataFrame:
    """Return distinct comments with a number and two classes."""
    spam = [k % 3 == 0 for k in range(rows)]
    texts = [f"{'buy cheap pills' if each else 'such a nice song'} number {k}" for k, each in enumerate(spam)]
    views = [(k * 7919) % 4999 / 2 for k in range(rows)]
    return pd.DataFrame({"text": texts, "views": views, "label": ["spam" if each else "ham" for each in spam]})


def written(folder: Path, frame: pd.DataFrame, functions: str = "", features: str = "text: text") -> Path:
    """Write a project of a table, and return its settings."""
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "own.py").write_text(functions)
    listed = "own.py" if functions else ""
    file = folder / "slicewatch.yaml"
    file.write_text(f"data: rows.csv\nlabel: label\nfeatures: {{{features}}}\nfunctions: [{listed}]\n")
    return file


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda label: label.where(label.index > 0, "odd"), "class 'odd' has "),
        (lambda label: [*label[30:], *(f"c{k}" for k in range(30))], "class 'c0' has "),
        (lambda label: label.where(label.index > 18)[19:], None),
        (lambda label: label.where(label.index % 90 > 0, "n" * 201), "cannot be sent as a label"),
        (lambda label: label.where(label.index % 9 > 0, "a\tb"), "no control characters"),
    ],
)
def test_labels_that_train_or_the_label_door_refuses_are_problems(
    cli: Callable, tmp_path: Path, labels: Callable, message: str | None
) -> None:
    """Classes of one row, long classes and classes with control characters are found by check."""
    frame = comments()
    new = labels(frame["label"])
    file = written(tmp_path, frame.tail(len(new)).assign(label=list(new)))
    answer = cli("check", "--config", file)
    assert (answer.code, message or "") == (0 if message is None else 2, message or "")
    assert (message or "") in answer.err


@pytest.mark.parametrize(
    ("columns", "warnings"),
    [
        (
            {"label": ["spam", "ham", "Spam"]},
            ["label: 'Spam' and 'spam' differ by case or number format only, and are different classes: "],
        ),
        (
            {"plan": ["a", " A ", "b", "B", "stra\u00dfe", "STRASSE"]},
            ["plan: 'A' and 'a' differ by case or number format only, and are different categories (and 2 more): "],
        ),
        (
            {"label": ["1", "1.0", "unsure"]},
            ["label: '1' and '1.0' differ by case or number format only, and are different classes: "],
        ),
        ({"plan": ["a", " a", "b"]}, []),
        ({"text": ["love it so", "Love it so", "cheap one"]}, []),
    ],
)
def test_values_that_differ_by_case_only_are_warned_of(
    cli: Callable, tmp_path: Path, columns: dict[str, list[str]], warnings: list[str]
) -> None:
    """Classes and categories are: they are different ones, although one may be meant. Texts are not."""
    frame = comments().assign(plan="x")
    spelled = {name: [values[k % len(values)] for k in range(len(frame))] for name, values in columns.items()}
    spelled |= {"text": [f"{each} {k}" for k, each in enumerate(spelled["text"])]} if "text" in spelled else {}
    answer = cli("check", "--config", written(tmp_path, frame.assign(**spelled), features="text: text, plan: category"))
    assert answer.code == 0
    assert [line for line in answer.out.splitlines() if "case" in line] == [
        f"warning: {each}unify them if they are one" for each in warnings
    ]


def test_a_value_of_one_of_that_its_column_spells_otherwise_is_warned_of(cli: Callable, tmp_path: Path) -> None:
    """The spelling that the rows have is named; values in that spelling are no concern."""
    plans = ["1.0", "caf\u00e9", "True", "x"]
    frame = comments().assign(plan=[plans[k % 4] for k in range(len(comments()))])
    file = written(tmp_path, frame, features="text: text, plan: category")
    values = '1.0, "1.0", "cafe\u0301", true, "True", " ", "x"'
    (tmp_path / "plans.yaml").write_text(f"slices:\n  - {{name: some, one_of: {{field: plan, values: [{values}]}}}}\n")
    file.write_text(file.read_text().replace("functions: []", "functions: [plans.yaml]"))
    answer = cli("check", "--config", file)
    assert answer.code == 0
    assert [line for line in answer.out.splitlines() if "in column" in line] == [
        "warning: slice 'some': ' ' is read as a missing value in column 'plan': use `missing`",
        "warning: slice 'some': '1' is read as '1.0' in column 'plan': write \"1.0\"",
        "warning: slice 'some': 'cafe\u0301' is read as 'caf\u00e9' in column 'plan': write \"caf\u00e9\"",
        "warning: slice 'some': 'true' is read as 'True' in column 'plan': write \"True\"",
    ]


def test_nineteen_rows_are_too_few(cli: Callable, tmp_path: Path) -> None:
    """A table that train refuses for its size is a problem."""
    answer = cli("check", "--config", written(tmp_path, comments(19)))
    assert (answer.code, "19 rows are too few" in answer.err) == (2, True)


def test_rows_that_cannot_be_split_are_a_problem(cli: Callable, tmp_path: Path) -> None:
    """A class with two contents in one part of every split is found, as train finds it."""
    frame = comments(40).assign(text=[f"text {k % 4}" for k in range(40)], label=["a", "b", "a", "b"] * 10)
    file = written(tmp_path, frame)
    checked, trained = cli("check", "--config", file), cli("train", "--config", file)
    assert checked.code == trained.code
    assert (trained.err.removeprefix("slicewatch: error: ") in checked.err) or not trained.code


def test_a_value_beyond_the_first_rows_that_no_feature_reads_is_a_problem(cli: Callable, tmp_path: Path) -> None:
    """Every row is read, and the message names the row of the table."""
    rows = [json.dumps({"text": f"some words {k}", "views": k, "label": "ab"[k % 2]}) for k in range(50_010)]
    rows[50_005] = json.dumps({"text": ["a list"], "views": 1, "label": "a"})
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    file = tmp_path / "slicewatch.yaml"
    file.write_text("data: rows.jsonl\nlabel: label\nfeatures: {text: category, views: number}\n")
    answer = cli("check", "--config", file)
    assert (answer.code, "column 'text', row 50005" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("n" * 201, "has 201 characters"), ("links/short", "part of a URL"), ("..", "part of a URL")],
)
def test_a_slice_name_that_the_service_refuses_is_a_problem(
    cli: Callable, tmp_path: Path, name: str, problem: str
) -> None:
    """A name that the service and train do not accept is found by check, with its file."""
    functions = (
        f"from sfs import slicing_function\n\n\n@slicing_function(name='{name}')\ndef f(x):\n    return x.views > 9\n"
    )
    answer = cli("check", "--config", written(tmp_path, comments(), functions))
    assert answer.code == 2
    assert re.search(rf"functions: .*\.py: .*{problem}", answer.err)


def test_a_missing_value_that_never_occurs_is_a_warning(cli: Callable, tmp_path: Path) -> None:
    """A comparison that raises on a missing value warns if the column has none, and fails if it has one."""
    functions = (
        "from sfs import slicing_function\n\n\n@slicing_function()\ndef popular(x):\n    return x.views > 2000\n"
    )
    frame = comments()
    answer = cli("check", "--config", written(tmp_path, frame, functions))
    assert answer.code == 0
    assert "warning: function popular: no value in 'views': TypeError" in answer.out
    frame.loc[150, "views"] = None
    answer = cli("check", "--config", written(tmp_path, frame, functions))
    assert (answer.code, "popular is not total: no value in 'views'" in answer.err) == (2, True)


def test_redundant_slices_are_warned_of(cli: Callable, tmp_path: Path) -> None:
    """Check and sfs stats warn of constant, near-duplicate and nested slices, in text and JSON."""
    lines = [
        "- {name: never, compare: {field: views, below: -1}}",
        "- {name: always, compare: {field: views, at_least: -1}}",
        "- {name: low, compare: {field: views, below: 1000}}",
        "- {name: lower, compare: {field: views, below: 990}}",
        "- {name: lowest, compare: {field: views, below: 500}}",
    ]
    (tmp_path / "own.yaml").write_text("slices:\n" + "\n".join(lines))
    file = written(tmp_path, comments())
    file.write_text(file.read_text().replace("functions: []", "functions: own.yaml"))
    for command in (("check",), ("sfs", "stats")):
        answer = cli(*command, "--config", file)
        assert answer.code == 0
        told = json.loads(cli(*command, "--config", file, "--json").out)["warnings"]
        assert [warning.split("'")[1] for warning in told] == ["never", "always", "low", "lowest"]
        assert all(f"warning: {warning}" in answer.out for warning in told)


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        (lambda label: (label == "spam").astype(int), "number"),
        (lambda label: label.map({"spam": "refused", "ham": "kept"}), "category"),
        (lambda label: label.rank(method="first"), "number"),
        (lambda label: pd.Series(range(len(label))).where(label == "spam"), "number"),
        (lambda label: label.where(label == "spam"), "category"),
    ],
)
def test_a_column_that_gives_the_label_away_is_named(cli: Callable, tmp_path: Path, leak: Callable, kind: str) -> None:
    """Copies, renamed copies, an index of the sorted table and missing values are named by check and train."""
    frame = comments()
    frame["after"] = leak(frame["label"])
    file = written(tmp_path, frame.sample(frac=1, random_state=1), features=f"views: number, after: {kind}")
    said = "column 'after' alone predicts the label"
    checked = cli("check", "--config", file)
    assert (checked.code, said in checked.out, "column 'views'" in checked.out) == (0, True, False)
    trained = cli("train", "--config", file, "--epochs", "2", "--learner", "erm")
    assert (trained.code, said in trained.out) == (0, True)


def test_a_column_with_some_errors_is_no_leak(cli: Callable, tmp_path: Path) -> None:
    """A column that predicts nine rows of ten is a good feature."""
    frame = comments()
    frame["hint"] = (frame["label"] == "spam") ^ (frame.index % 10 == 0)
    assert "alone predicts" not in cli("check", "--config", written(tmp_path, frame, features="hint: category")).out


def test_check_of_a_wide_table_calls_functions_as_often_as_of_a_narrow_one(cli: Callable, tmp_path: Path) -> None:
    """The calls of a function do not grow with the columns, and init proposes at most 40 slices."""
    counts = []
    for width in (5, 300):
        folder = tmp_path / str(width)
        folder.mkdir()
        frame = comments(60).drop(columns="text")
        more = {f"f{k}": frame["views"] * (k + 1) % 97 for k in range(width)}
        functions = (
            "from pathlib import Path\n\nfrom sfs import slicing_function\n\n\n"
            "@slicing_function()\ndef popular(x):\n"
            f"    with open({str(folder / 'calls')!r}, 'a') as file:\n        file.write('x')\n"
            "    return x.views is not None and x.views > 2000\n"
        )
        wide = pd.concat([frame, pd.DataFrame(more)], axis=1)
        file = written(folder, wide, functions, "views: number")
        assert cli("check", "--config", file).code == 0
        counts.append((folder / "calls").stat().st_size)
    assert counts[0] == counts[1]
    folder = tmp_path / "300"
    assert cli("init", folder / "project", "--data", folder / "rows.csv").code == 0
    assert 0 < (folder / "project/slices.yaml").read_text().count("- {name: ") <= 40


SCHEMA = "schema:\n  country: {type: category, missing: [NA]}\n  'Price [eur]': number\n  class: category\n"


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("type_", "values", "message"),
    [
        (
            "boolean",
            {7: "maybe"},
            "column 'flag', row 7: expected true or false, got 'maybe': correct the value",
        ),
        ("integer", {9: "2.5"}, "column 'flag', row 9: expected a whole number, got '2.5'"),
        ("number", {0: "1,5"}, "column 'flag', row 0: expected a number, got '1,5'"),
        ("{type: timestamp}", {3: "x"}, "column 'flag', row 3: expected a date and time without a time zone"),
        ("date", {239: "1 May"}, "column 'flag', row 239: expected a date such as 2026-05-01, got '1 May'"),
    ],
)
def test_a_column_that_no_longer_reads_as_settled_is_a_problem(
    cli: Callable,
    project: Path,
    table_file: Path,
    command: str,
    type_: str,
    values: dict[int, str],
    message: str,
) -> None:
    """The message has the row, the column, the value and the type that is meant; `train` refuses the same."""
    good = {"boolean": "True", "integer": "4", "number": "1.5"}.get(type_, "2026-05-01")
    frame = pd.read_csv(table_file)
    frame.assign(flag=[values.get(n, good) for n in range(len(frame))]).to_csv(table_file, index=False)
    project.write_text(f"{project.read_text()}{SCHEMA}  flag: {type_}\n")
    answer = cli(command, "--config", project)
    assert answer.code == 2
    assert answer.err.startswith(f"slicewatch: error: data: {message}")
    assert answer.err.count("\n") == 1


def test_a_bad_value_of_a_feature_is_one_problem(cli: Callable, project: Path, table_file: Path) -> None:
    """The schema and the feature refuse the same value: it is named once."""
    frame = pd.read_csv(table_file, dtype={"Price [eur]": object})
    frame.loc[5, "Price [eur]"] = "dear"
    frame.to_csv(table_file, index=False)
    project.write_text(project.read_text() + SCHEMA)
    answer = cli("check", "--config", project)
    assert answer.code == 2
    assert answer.err.count("'dear'") == answer.err.count("\n") == 1


def test_a_column_of_the_schema_has_to_be_in_the_table(cli: Callable, project: Path) -> None:
    """A misspelt one is a problem."""
    project.write_text(project.read_text() + SCHEMA.replace("country", "county"))
    assert "no column 'county'" in cli("check", "--config", project).err


def test_patterns_beyond_the_limits_are_a_problem(cli: Callable, project: Path) -> None:
    """The problem names the number, the limit and the setting."""
    project.write_text(project.read_text() + "template_limits: {terms: 1}\n")
    answer = cli("check", "--config", project)
    assert answer.code == 2
    assert "the templates have 2 different terms, more than the limit of 1" in answer.err
    assert "template_limits.terms" in answer.err


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["ham", "ham "], "holds only 'ham': at least two classes are required"),
        ([pd.Timestamp("2026-05-01"), pd.Timestamp("2026-05-02")], None),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_check_reads_labels_as_train_does(
    cli: Callable, tmp_path: Path, command: str, labels: list, problem: str | None
) -> None:
    """Blanks around a label distinguish no classes, and a date is a class."""
    frame = comments(60).assign(label=labels * 30)
    file = written(tmp_path, frame, features="views: number")
    frame.to_parquet(tmp_path / "rows.parquet")
    file.write_text(f"{file.read_text().replace('.csv', '.parquet')}learner: {{kind: erm, epochs: 1}}\n")
    answer = cli(command, "--config", file)
    assert answer.code == (0 if problem is None else 2)
    assert (problem or "") in answer.err


def test_a_date_as_a_category_is_a_problem_that_names_the_column(cli: Callable, tmp_path: Path) -> None:
    """A column of dates has no spellings to compare."""
    file = written(tmp_path, comments(), features="at: category")
    comments().assign(at=pd.Timestamp("2026-05-01")).to_parquet(tmp_path / "rows.parquet")
    file.write_text(file.read_text().replace(".csv", ".parquet"))
    answer = cli("check", "--config", file)
    assert answer.code == 2
    assert answer.err.startswith("slicewatch: error: features: column 'at', row 0: Timestamp(")


def test_paths_that_later_steps_cannot_use_are_problems(cli: Callable, project: Path) -> None:
    """A registry that is a file, a store below a file and a missing clock are found by check."""
    project.write_text(f"{project.read_text()}registry: orders.csv\nstore: orders.csv/store.db\nclock: clock.json\n")
    answer = cli("check", "--config", project)
    assert answer.code == 2
    for message in ("registry: ", "store: ", "orders.csv cannot be written: Not a directory", "remove `clock`"):
        assert message in answer.err
    assert "orders.csv: Not a directory" in cli("train", "--config", project).err


def test_classes_of_the_settings_that_the_table_lacks_are_warned_of(cli: Callable, project: Path) -> None:
    """A trained model has the classes of the table."""
    text = project.read_text()
    project.write_text(f"{text}classes: [kept, gone]\n")
    answer = cli("check", "--config", project)
    assert answer.code == 0
    assert "no problems: `slicewatch up` can start" in answer.out
    assert "classes: ['gone', 'kept'] in the settings, ['kept', 'lost', 'returned'] in the table: " in answer.out
    project.write_text(f"{text}classes: [returned, kept, lost]\n")
    assert "in the settings" not in cli("check", "--config", project).out


def test_a_function_over_its_budget_is_a_problem_and_not_applied_to_the_sample(cli: Callable, tmp_path: Path) -> None:
    """The other functions are applied."""
    functions = (
        "from sfs import slicing_function\n\n\n"
        "@slicing_function(budget_ms=1e-9)\ndef slow(x):\n    return x.views is None\n\n\n"
        "@slicing_function(budget_ms=1e5)\ndef fast(x):\n    return x.views is not None and x.views > 2000\n"
    )
    answer = cli("check", "--json", "--config", written(tmp_path, comments(), functions))
    found = json.loads(answer.out)
    assert [each["slice"] for each in found["slices"]] == ["fast"]
    assert [each.partition(":")[2].partition(":")[0] for each in found["problems"]] == [" slow is not within budget"]


@pytest.mark.parametrize("command", [["check"], ["sfs", "check"], ["sfs", "list"], ["sfs", "stats"]])
def test_functions_that_print_leave_the_document_alone(cli: Callable, project: Path, command: list[str]) -> None:
    """With --json, what a function prints goes to stderr."""
    with project.with_name("slices.py").open("a") as file:
        file.write("\n\nprint('loaded')\n")
    answer = cli(*command, "--json", "--config", project)
    assert json.loads(answer.out)
    assert "loaded" in answer.err


@pytest.mark.parametrize(("test", "code"), [("x.tags.sum() > 3", 2), ("sum(x.tags or []) > 3", 0)])
def test_functions_are_checked_on_records_as_requests_send_them(
    cli: Callable, tmp_path: Path, test: str, code: int
) -> None:
    """A list is an array in a Parquet file and a list in a request."""
    functions = f"from sfs import slicing_function\n\n\n@slicing_function()\ndef own(x):\n    return bool({test})\n"
    file = written(tmp_path, comments(), functions)
    file.write_text(file.read_text().replace(".csv", ".parquet"))
    comments().assign(tags=[[1, k % 5] for k in range(200)]).to_parquet(tmp_path / "rows.parquet")
    answer = cli("check", "--config", file)
    assert (answer.code, "'list' object has no attribute 'sum'" in answer.err) == (code, bool(code))


def test_a_template_that_reads_the_label_is_a_problem(cli: Callable, project: Path) -> None:
    """Check says the same as train."""
    project.with_name("slices.yaml").write_text("slices:\n  - {name: own, missing: {field: class}}\n")
    for command in ("check", "train"):
        answer = cli(command, "--config", project)
        assert answer.code == 2
        assert "template 'own' reads the label column 'class', and leaks it to the model" in answer.err
