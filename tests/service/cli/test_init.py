"""``slicewatch init``."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from service.cli.init import to_identifier, to_yaml
from service.settings.loading import load
from sfs.apply import apply
from sfs.registry import FunctionSet


def initialised(cli: Callable, folder: Path, frame: pd.DataFrame, *options: str) -> Path:
    """Return the folder of a project that init wrote for a table."""
    frame.to_csv(folder / "rows.csv", index=False)
    answer = cli("init", folder / "project", "--data", folder / "rows.csv", *options)
    assert (answer.code, answer.err) == (0, "")
    return folder / "project"


def test_difficult_headers_survive(cli: Callable, tmp_path: Path, table_file: Path) -> None:
    """Spaces, brackets, quotes and colons in a header are kept."""
    initialised(cli, tmp_path, pd.read_csv(table_file))
    settings = load(tmp_path / "project/slicewatch.yaml", {})
    assert settings.label == "class"
    assert settings.features == {
        "Price [eur]": "number",
        "country": "category",
        "Customer's comment: (raw)": "text",
    }


def test_left_out_columns_are_explained(cli: Callable, tmp_path: Path, table_file: Path) -> None:
    """Ids, dates and constants are comments with the reason."""
    text = (initialised(cli, tmp_path, pd.read_csv(table_file)) / "slicewatch.yaml").read_text()
    assert "# order id: left out, it looks like an id" in text
    assert "# placed on: left out, it is a date" in text
    assert "# shop: left out, it has the same value in every row" in text
    assert "'Price [eur]': number" in text
    assert "% missing" in text


def test_the_example_slices_have_members(cli: Callable, tmp_path: Path, table_file: Path) -> None:
    """Every written function and template loads, and has members and non-members."""
    frame = pd.read_csv(table_file)
    folder = initialised(cli, tmp_path, frame)
    functions = FunctionSet.from_file(folder / "slices.py") + FunctionSet.from_file(folder / "slices.yaml")
    S = apply(functions, frame)
    assert {"no_price_eur", "few_country", "high_price_eur"} <= set(S.names)
    assert not S.unknown.any()
    assert all(0 < int(S.column(name).sum()) < len(frame) for name in S.names)


@pytest.mark.parametrize(
    "columns",
    [
        {"score": range(0, 800, 2), "label": ["a", "b"] * 200},
        {"ok": [True, False] * 200, "label": ["a", "b"] * 200},
        {"size": [1.5, 2.5, 3, None] * 100, "kind": ["x", "y", "z", "x"] * 100, "label": ["a", "b"] * 200},
        {"Größe (m)": [1.5, 2.5, 3, 4] * 100, "Größe [m]": [1, 2, 3, 4] * 100, "y": [0, 1] * 200},
        {"no": ["x", "y", "x", "x"] * 100, "class": ["a", "b"] * 200},
    ],
)
def test_tables_without_text_get_functions_too(cli: Callable, tmp_path: Path, columns: dict) -> None:
    """Both files load for any kinds of columns, with distinct names."""
    frame = pd.DataFrame(columns)
    folder = initialised(cli, tmp_path, frame)
    settings = load(folder / "slicewatch.yaml", {})
    assert apply(FunctionSet.from_files(settings.functions), frame).member.any()
    assert settings.features


def test_init_needs_no_data(cli: Callable, tmp_path: Path) -> None:
    """Without --data, the project has generated comments."""
    answer = cli("init", tmp_path / "demo", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["files"] == [
        "slicewatch.yaml",
        "slices.py",
        "slices.yaml",
        "comments.csv",
        ".gitignore",
    ]
    settings = load(tmp_path / "demo/slicewatch.yaml", {})
    assert settings.data.exists()
    assert settings.features["text"] == "text"


def test_init_overwrites_nothing(cli: Callable, tmp_path: Path) -> None:
    """An existing file stops init before it writes any."""
    (tmp_path / "slices.py").write_text("mine")
    answer = cli("init", tmp_path)
    assert answer.code == 2
    assert "already has slices.py: nothing was written" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["slices.py"]


def test_init_asks_for_a_label_that_is_not_obvious(cli: Callable, tmp_path: Path) -> None:
    """Without an obvious label, init lists candidates and writes nothing."""
    pd.DataFrame({"kind": ["a", "b"] * 20, "size": range(40)}).to_csv(tmp_path / "rows.csv", index=False)
    answer = cli("init", tmp_path / "project", "--data", tmp_path / "rows.csv")
    assert answer.code == 2
    assert "--label COLUMN; candidates: 'kind' (2 values)" in answer.err
    assert not (tmp_path / "project").exists()


def test_blank_labels_are_noted(cli: Callable, tmp_path: Path) -> None:
    """Blank labels cause a note."""
    frame = pd.DataFrame({"size": [1, 3, 5, 9] * 20, "label": ["a", "b", None, "b"] * 20})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    answer = cli("init", tmp_path / "project", "--data", tmp_path / "rows.csv")
    assert answer.code == 0
    assert "20 rows have no 'label'" in answer.err


def test_a_file_in_the_way_is_refused(cli: Callable, table_file: Path) -> None:
    """A file in place of the folder is refused."""
    answer = cli("init", table_file)
    assert (answer.code, answer.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "name", ["price", "no", "2024", "Price [eur]", "a: b", "x #y", "it's", '"q"', "- x", "Größe 😀", "~"]
)
def test_names_are_quoted_where_yaml_needs_it(name: str) -> None:
    """YAML reads every name back."""
    assert yaml.safe_load(f"{{{to_yaml(name)}: 1}}") == {name: 1}


def test_a_line_end_in_a_name_stays_on_one_line() -> None:
    """Unprintable characters are escaped."""
    assert yaml.safe_load(to_yaml("a\nb\x85")) == "a\nb\x85"
    assert "\n" not in to_yaml("a\nb\x85")


def test_names_become_identifiers() -> None:
    """Every name becomes an identifier."""
    assert [to_identifier(name) for name in ("Price [EUR]", "2nd", "Größe", "!?", "class")] == [
        "price_eur",
        "c_2nd",
        "größe",
        "column",
        "class",
    ]


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "data_format"), [("youtube-spam", "youtube"), ("sms-spam/SMSSpamCollection", "sms")]
)
def test_public_sets_are_recognised(
    cli: Callable, tmp_path: Path, data_dir: Path, path: str, data_format: str
) -> None:
    """The UCI comments and messages are recognised, and pass check."""
    assert cli("init", tmp_path / "project", "--data", data_dir / path).code == 0
    file = tmp_path / "project/slicewatch.yaml"
    assert load(file, {}).format == data_format
    assert cli("check", "--config", file).code == 0
