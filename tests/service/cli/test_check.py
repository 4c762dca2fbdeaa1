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
    assert "no problems" in answer.out
    assert all(name in answer.out for name in ("short_comment", "cheap", "no_price"))


def test_every_problem_is_listed(cli: Callable, project: Path, table_file: Path) -> None:
    """Misspelt columns, blank labels, a bad template and a faulty function are a line each, with code 2."""
    frame = pd.read_csv(table_file)
    frame.loc[[3, 7], "class"] = None
    frame.to_csv(table_file, index=False)
    project.write_text(project.read_text().replace("country: category", "county: category\n  shop: number"))
    templates = project.with_name("slices.yaml")
    templates.write_text(
        templates.read_text() + "  - {name: again, regex: {field: country, pattern: 'a(?=b)'}}\n"
    )
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
    project.with_name("slices.yaml").write_text(
        "slices:\n  - {name: short_comment, missing: {field: country}}\n"
    )
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
def test_bad_functions(
    cli: Callable, project: Path, command: str, file: str, text: str, messages: list[str]
) -> None:
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
    python.write_text(
        python.read_text().replace("import slicing", "import labeling_function, slicing") + LABELER
    )
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
