"""``slicewatch apply``."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest


def test_each_slice_becomes_a_column(cli: Callable, project: Path, table_file: Path, tmp_path: Path) -> None:
    """The rows keep their columns and order, and gain true or false per slice."""
    rows = pd.read_csv(table_file)
    answer = cli("apply", table_file, "--out", tmp_path / "out.parquet", "--config", project)
    assert (answer.code, answer.err) == (0, "")
    made = pd.read_parquet(tmp_path / "out.parquet")
    assert list(made.columns) == [*rows.columns, "short_comment", "cheap", "no_price"]
    assert made["order id"].tolist() == rows["order id"].tolist()
    assert made["cheap"].tolist() == (rows["Price [eur]"] < 40).tolist()
    assert "240 rows, written to" in answer.out


def test_unknown_memberships_stay_empty(cli: Callable, project: Path, table_file: Path, tmp_path: Path) -> None:
    """A row on which a function raised is empty, and the table has the reason and the first row."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\n@slicing_function()\ndef picky(x):\n    return {'no': True, 'se': False}[x['country']]\n")
    answer = cli("apply", table_file, "--out", tmp_path / "out.csv", "--config", project)
    made, country = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(table_file)["country"]
    assert made["picky"].isna().tolist() == (country == "dk").tolist()
    assert made["picky"].dropna().tolist() == (country[country != "dk"] == "no").tolist()
    first = int((country == "dk").idxmax())
    assert f"{(country == 'dk').sum()} KeyError" in answer.out
    assert f"picky: first fault at row {first}: KeyError" in answer.out


def test_predictions_join_the_rows(cli: Callable, trained: Path, tmp_path: Path) -> None:
    """The predicted class is the most probable one, and probabilities sum to 1."""
    out = tmp_path / "out.parquet"
    data = trained.parent / "orders.csv"
    assert cli("apply", data, "--out", out, "--with-predictions", "--config", trained).code == 0
    made = pd.read_parquet(out)
    probabilities = made[["p_kept", "p_lost", "p_returned"]]
    assert probabilities.sum(axis=1).round(6).eq(1).all()
    assert ("p_" + made["predicted"]).tolist() == probabilities.idxmax(axis=1).tolist()


def test_a_row_has_one_answer_beside_any_other_row(cli: Callable, trained: Path, tmp_path: Path) -> None:
    """An odd value in another row does not change how a row is read."""
    data = pd.read_csv(trained.parent / "orders.csv", dtype=str)
    answers = []
    for name, odd in (
        ("alone", None),
        ("beside", data.iloc[1]),
        ("odd", data.iloc[1].replace(data.iloc[1, 2], "?")),
    ):
        rows = data.iloc[[0]] if odd is None else pd.DataFrame([data.iloc[0], odd])
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        out = tmp_path / f"{name}.jsonl"
        words = ["apply", tmp_path / f"{name}.csv", "--out", out, "--with-predictions", "--config", trained]
        assert cli(*words).code == 0
        answers.append(json.loads(out.read_text().splitlines()[0]))
    assert answers[0] == answers[1] == answers[2]


def test_changed_functions_are_unknown_to_the_model(cli: Callable, trained: Path, tmp_path: Path) -> None:
    """A function edited after training is applied, is unknown to the model, and is named in a note."""
    python = trained.parent / "slices.py"
    python.write_text(python.read_text().replace("< 4", "< 3"))
    data = trained.parent / "orders.csv"
    answer = cli("apply", data, "--out", tmp_path / "out.csv", "--with-predictions", "--config", trained)
    assert answer.code == 0
    assert "slices ['short_comment'] are unknown to the model" in answer.err


def test_a_file_of_functions_needs_no_settings(cli: Callable, project: Path, table_file: Path) -> None:
    """With --functions the settings may be absent."""
    absent = project.with_name("absent.yaml")
    templates = project.with_name("slices.yaml")
    answer = cli("apply", table_file, "--functions", templates, "--config", absent, "--json")
    assert [one["slice"] for one in json.loads(answer.out)["slices"]] == ["cheap", "no_price"]


def test_coverage_over_batches_is_the_sum(cli: Callable, project: Path, tmp_path: Path) -> None:
    """A file of more than one batch is counted as a whole, faults by their row in the file."""
    rows = pd.DataFrame({"Price [eur]": [10.0, 90.0] * 30_000, "country": ["no"] * 59_999 + ["dk"]})
    rows.to_parquet(tmp_path / "long.parquet")
    python = tmp_path / "late.py"
    python.write_text(
        "from sfs import slicing_function\n\n\n"
        "@slicing_function()\ndef late(x):\n    return 1 / (x.country != 'dk') > 2\n"
    )
    functions = ["--functions", python, "--functions", project.with_name("slices.yaml")]
    answer = cli("apply", tmp_path / "long.parquet", *functions, "--config", project, "--json")
    told = json.loads(answer.out)
    late, cheap, _ = told["slices"]
    assert (told["rows"], cheap["members"], cheap["coverage"]) == (60_000, 30_000, 0.5)
    assert (late["unknown"], late["known"], late["reasons"]) == (1, 59_999, {"ZeroDivisionError": 1})
    assert late["first_fault"].startswith("row 59999: ZeroDivisionError")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--with-predictions"], "--with-predictions needs --out"),
        (["--out", "{data}"], "--out would overwrite"),
        (["--out", "{folder}/absent/out.csv"], "no folder"),
        (["--out", "{folder}/out.xlsx"], "unknown file format '.xlsx'"),
        (["--out", "{folder}/out.csv", "--with-predictions"], "no registry"),
        (["--functions", "{folder}/absent.py"], "absent.py"),
        (["--functions", "{data}"], "functions come from .py, .yaml or .yml files"),
    ],
)
def test_misuse_writes_nothing(
    cli: Callable, project: Path, table_file: Path, options: list[str], message: str
) -> None:
    """Misuse ends with code 2 before any file is written."""
    before = table_file.read_bytes()
    given = [option.format(data=table_file, folder=project.parent) for option in options]
    answer = cli("apply", table_file, *given, "--config", project)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert table_file.read_bytes() == before
    assert not list(project.parent.glob("out.*"))


def test_a_slice_named_like_a_column_is_refused(cli: Callable, project: Path, table_file: Path) -> None:
    """A column of the file is never overwritten by a slice."""
    (project.parent / "slices.yaml").write_text("slices:\n  - {name: country, missing: {field: country}}\n")
    answer = cli("apply", table_file, "--out", project.parent / "out.csv", "--config", project)
    assert answer.code == 2
    assert "two columns would be named ['country']" in answer.err
    assert not (project.parent / "out.csv").exists()


@pytest.mark.parametrize("name", ["predicted", "p_kept"])
def test_a_slice_named_like_an_added_column_is_refused(cli: Callable, trained: Path, tmp_path: Path, name: str) -> None:
    """A column of the predictions never overwrites a slice: check and apply refuse its name."""
    (trained.parent / "slices.yaml").write_text(f"slices:\n  - {{name: {name}, missing: {{field: country}}}}\n")
    words = ["apply", trained.parent / "orders.csv", "--out", tmp_path / "out.csv", "--with-predictions"]
    applied, checked = cli(*words, "--config", trained), cli("check", "--config", trained)
    assert (applied.code, checked.code) == (2, 2)
    assert f"two columns would be named ['{name}']: rename the slices" in applied.err
    assert f"slice '{name}' has the name of a column that `apply` adds" in checked.err


def test_an_interruption_leaves_nothing_behind(cli: Callable, project: Path, table_file: Path) -> None:
    """Ctrl-C ends with one line and code 130; the output is not half-written."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\n@slicing_function()\ndef stops(x):\n    raise KeyboardInterrupt\n")
    answer = cli("apply", table_file, "--out", project.parent / "out.csv", "--config", project)
    assert (answer.code, answer.out, answer.err) == (130, "", "slicewatch: interrupted\n")
    assert sorted(path.name for path in project.parent.iterdir() if "out" in path.name) == []


def test_a_folder_is_no_file_of_rows(cli: Callable, project: Path) -> None:
    """A folder other than the public data set is refused."""
    answer = cli("apply", project.parent, "--config", project)
    assert answer.code == 2
    assert "is a folder: pass a file of rows" in answer.err


def test_a_version_without_predictions_is_misuse(cli: Callable, project: Path, table_file: Path) -> None:
    """--model without --with-predictions is refused."""
    answer = cli("apply", table_file, "--model", "1", "--config", project)
    assert answer.code == 2
    assert "add --with-predictions" in answer.err


def test_functions_do_not_see_the_label(cli: Callable, project: Path, table_file: Path) -> None:
    """A function that reads the label is unknown on every row, as in training."""
    functions = project.with_name("cheat.py")
    functions.write_text(
        "from sfs import slicing_function\n\n\n@slicing_function()\ndef cheat(x):\n    return x['class'] == 'kept'\n"
    )
    answer = cli("apply", table_file, "--functions", functions, "--config", project, "--json")
    (one,) = json.loads(answer.out)["slices"]
    assert one["unknown"] == len(pd.read_csv(table_file))


def test_the_split_of_training_is_a_column(cli: Callable, project: Path, table_file: Path, tmp_path: Path) -> None:
    """Every row is train, valid or held_out, in the numbers that `train` prints."""
    out = tmp_path / "split.csv"
    assert cli("apply", table_file, "--config", project, "--out", out, "--with-split").code == 0
    sizes = pd.read_csv(out)["split"].value_counts().to_dict()
    cli("train", "--config", project)
    trained = json.loads(cli("models", "show", "--config", project, "--json").out)
    assert sizes == trained["lineage"]["rows"]
    missing = cli("apply", table_file, "--config", project, "--with-split")
    assert (missing.code, "--with-split needs --out FILE" in missing.err) == (2, True)


def test_repeated_rows_widen_the_interval(cli: Callable, project: Path, table_file: Path, tmp_path: Path) -> None:
    """Counts are those of the rows, and the interval is that of their contents, in `apply` and in `sfs stats`."""
    once = json.loads(cli("apply", table_file, "--config", project, "--json").out)["slices"]
    rows = pd.concat([pd.read_csv(table_file)] * 5)
    rows["order id"] = range(len(rows))  # no feature
    rows.to_csv(tmp_path / "often.csv", index=False)
    for words in (("apply",), ("sfs", "stats")):
        often = json.loads(cli(*words, tmp_path / "often.csv", "--config", project, "--json").out)["slices"]
        for one, five in zip(once, often, strict=True):
            assert (five["members"], five["known"]) == (5 * one["members"], 5 * one["known"])
            assert five["effective_n"] == one["effective_n"] <= one["known"]
            assert five["coverage_interval"] == pytest.approx(one["coverage_interval"])
    assert "effective n" in cli("apply", tmp_path / "often.csv", "--config", project).out


def test_documents_can_be_sliced(cli: Callable, project: Path, table_file: Path, tmp_path: Path) -> None:
    """A functions file may parse texts with spaCy; a number is unknown with its reason."""
    path, out = tmp_path / "documents.py", tmp_path / "out.csv"
    function = "import spacy\nfrom sfs import nlp_slicing_function\n\nnlp = spacy.blank('en')\n"
    for name, field in (("one_word", "country"), ("priced", "Price [eur]")):
        settings = f"language=nlp, text_field={field!r}, budget_ms=60_000"
        function += f"\n@nlp_slicing_function({settings})\ndef {name}(x):\n    return len(x.doc) == 1\n"
    path.write_text(function)
    answer = cli("apply", table_file, "--functions", path, "--out", out, "--config", project)
    made, rows = pd.read_csv(out), pd.read_csv(table_file)
    assert (answer.code, made["one_word"].all(), made["priced"].isna().all()) == (0, True, True)
    assert f"{len(rows)} TypeError" in answer.out
