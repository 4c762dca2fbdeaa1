"""``slicewatch init``."""

import csv
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, time
from io import StringIO
from pathlib import Path
from random import Random
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from service.__main__ import main
from service.cli.init import to_identifier, to_yaml
from service.settings import LEARNERS, TABLE_FORMATS
from service.settings.loading import load
from sfs.analysis import redundant_slices, shared_members
from sfs.apply import apply
from sfs.registry import FunctionSet
from sfs.schema import Schema
from sfs.tables import FORMATS, write_batches


def initialised(cli: Callable, folder: Path, frame: pd.DataFrame, *options: str) -> Path:
    """Return the folder of a project that init wrote for a table."""
    frame.to_csv(folder / "rows.csv", index=False)
    answer = cli("init", folder / "project", "--data", folder / "rows.csv", *options)
    assert (answer.code, answer.err) == (0, "")
    return folder / "project"


def test_difficult_headers_survive(cli: Callable, tmp_path: Path, table_file: Path) -> None:
    """Spaces, brackets, quotes and colons in a header are kept."""
    initialised(cli, tmp_path, pd.read_csv(table_file))
    loaded = load(tmp_path / "project/slicewatch.yaml", {})
    assert loaded.label == "class"
    assert loaded.features == {
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
    loaded = load(folder / "slicewatch.yaml", {})
    assert apply(FunctionSet.from_files(loaded.functions), frame).member.any()
    assert loaded.features


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
    loaded = load(tmp_path / "demo/slicewatch.yaml", {})
    assert loaded.data.exists()
    assert loaded.features["text"] == "text"


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
    "name",
    [
        "price",
        "no",
        "2024",
        "Price [eur]",
        "a: b",
        "x #y",
        "it's",
        '"q"',
        "- x",
        "Größe 😀",
        "~",
        "\U00018cd6",
        "\ud800",
    ],
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
@pytest.mark.parametrize(("path", "data_format"), [("youtube-spam", "youtube"), ("sms-spam/SMSSpamCollection", "sms")])
def test_public_sets_are_recognised(cli: Callable, tmp_path: Path, data_dir: Path, path: str, data_format: str) -> None:
    """The UCI comments and messages are recognised, and pass check."""
    assert cli("init", tmp_path / "project", "--data", data_dir / path).code == 0
    file = tmp_path / "project/slicewatch.yaml"
    assert load(file, {}).format == data_format
    assert cli("check", "--config", file).code == 0


def table(rows: int = 200) -> pd.DataFrame:
    """Return comments with a number and a label."""
    return pd.DataFrame(
        {
            "text": [f"{'buy cheap pills' if k % 3 else 'a nice song'} number {k}" for k in range(rows)],
            "views": [(k * 7919) % 4999 / 2 for k in range(rows)],
            "label": ["spam" if k % 3 else "ham" for k in range(rows)],
        }
    )


def project_of(cli: Callable, folder: Path, frame: pd.DataFrame, name: str = "rows.csv") -> Path:
    """Return the settings that init wrote for a table, after they passed check."""
    writers = {".csv": frame.to_csv, ".parquet": frame.to_parquet}
    writers[Path(name).suffix](folder / name, index=False)
    answer = cli("init", folder / "project", "--data", folder / name)
    assert (answer.code, answer.err) == (0, "")
    file = folder / "project/slicewatch.yaml"
    assert cli("check", "--config", file).code == 0
    return file


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "level_0"])
def test_a_written_index_is_left_out(cli: Callable, tmp_path: Path, name: str) -> None:
    """The index of a data frame is left out, also after the rows were shuffled."""
    frame = table().sample(frac=1, random_state=1).reset_index(names=name)
    file = project_of(cli, tmp_path, frame)
    assert set(load(file, {}).features) == {"text", "views"}
    assert "left out, it" in file.read_text()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_numbers_leave_no_trace_in_the_slices(
    cli: Callable, tmp_path: Path, value: float, recwarn: pytest.WarningsRecorder
) -> None:
    """Thresholds are finite, and nothing warns."""
    frame = table()
    frame.loc[frame.index % 9 == 0, "views"] = value
    file = project_of(cli, tmp_path, frame)
    assert all(word not in file.with_name("slices.yaml").read_text() for word in (": nan", ": inf", ": -inf"))
    assert not recwarn.list


def test_a_value_far_down_in_the_table_counts_for_the_kind_of_a_column(cli: Callable, tmp_path: Path) -> None:
    """The kind of a feature and its type come from the same rows."""
    rows = '{"views": 1, "label": "a"}\n{"views": 2, "label": "b"}\n' * 25_000
    (tmp_path / "rows.jsonl").write_text(rows + '{"views": "maybe", "label": "a"}\n')
    assert cli("init", tmp_path / "p", "--data", tmp_path / "rows.jsonl").code == 0
    settings = load(tmp_path / "p/slicewatch.yaml", {})
    assert (settings.features["views"], settings.schema["views"]["type"]) == ("category", "category")


def test_columns_that_no_feature_reads_do_not_stop_init(cli: Callable, tmp_path: Path) -> None:
    """Times, durations, bytes and lists are left out; the rest is a project."""
    frame = table().assign(
        at=[time(9 + k % 3) for k in range(200)],
        took=pd.to_timedelta([k % 3 for k in range(200)], unit="D"),
        uuid=[UUID(int=k).bytes for k in range(200)],
        tags=[["a"] * (k % 3) for k in range(200)],
    )
    assert set(load(project_of(cli, tmp_path, frame, "rows.parquet"), {}).features) == {"text", "views"}


def test_guessed_slices_are_neither_nearly_constant_nor_the_same(cli: Callable, tmp_path: Path) -> None:
    """Zeros in most rows, few values and copies of a column give no slice of their own."""
    frame = table().drop(columns="text")
    frame["gain"] = [100.0 * k if k % 12 == 0 else 0.0 for k in range(200)]
    frame["gain_again"] = frame["gain"] * 2
    frame["stars"] = [[5, 5, 5, 4, 3][k % 5] for k in range(200)]
    frame["all_but_one"] = [float(k > 0) for k in range(200)]
    file = project_of(cli, tmp_path, frame)
    S = apply(FunctionSet.from_files(load(file, {}).functions), frame)
    shares = S.member.mean(axis=0)
    assert len(S.names) >= 3
    assert ((shares >= 0.01) & (shares <= 0.5)).all()
    assert not redundant_slices(S.names, np.full(len(S.names), 200), shared_members(S.member))


def test_a_guessed_slice_has_no_name_of_a_column(cli: Callable, tmp_path: Path) -> None:
    """Slices are numbered where a column has the name."""
    frame = table().assign(high_views=[k % 7 / 2 for k in range(200)])
    file = project_of(cli, tmp_path, frame)
    assert "high_views_2" in FunctionSet.from_files(load(file, {}).functions).names


def test_no_value_of_a_row_is_in_a_comment(cli: Callable, tmp_path: Path) -> None:
    """Names, handles and texts of rows stay out of the written files."""
    frame = table()
    frame["handle"] = [f"@user{k}" for k in range(200)]
    frame["city"] = [f"Village{k % 40}" if k < 50 else "Oslo" for k in range(200)]
    file = project_of(cli, tmp_path, frame)
    written = "".join(path.read_text() for path in file.parent.iterdir() if path.is_file())
    assert all(word not in written for word in ("@user", "Village", "cheap", "nice song"))


def test_the_state_folder_is_ignored_by_git(cli: Callable, tmp_path: Path) -> None:
    """A .gitignore is written, or, where there is one, left as it is with a note."""
    initialised(cli, tmp_path, table())
    assert ".slicewatch/" in (tmp_path / "project/.gitignore").read_text().splitlines()
    other = tmp_path / "other"
    other.mkdir()
    (other / ".gitignore").write_text("*.pyc\n")
    answer = cli("init", other, "--data", tmp_path / "rows.csv")
    assert "add .slicewatch/ to it" in answer.out
    assert (other / ".gitignore").read_text() == "*.pyc\n"


def test_the_next_command_can_be_pasted(cli: Callable, tmp_path: Path) -> None:
    """The name of a folder is quoted if a shell would split it."""
    table().to_csv(tmp_path / "my rows.csv", index=False)
    answer = cli("init", tmp_path / "my project", "--data", tmp_path / "my rows.csv")
    assert f"cd '{tmp_path}/my project' && slicewatch check" in answer.out
    assert cli("check", "--config", tmp_path / "my project/slicewatch.yaml").code == 0


def test_data_outside_the_folder_is_noted(cli: Callable, tmp_path: Path) -> None:
    """Compose mounts the project folder only."""
    table().to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "inside").mkdir()
    table().to_csv(tmp_path / "inside/rows.csv", index=False)
    outside = cli("init", tmp_path / "project", "--data", tmp_path / "rows.csv")
    inside = cli("init", tmp_path / "inside", "--data", tmp_path / "inside/rows.csv")
    assert ("compose.yaml mounts" in outside.out, "compose.yaml mounts" in inside.out) == (True, False)


@pytest.mark.parametrize("name", ["rows.data", "rows.txt", "rows"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_files_without_a_telling_suffix_are_projects(cli: Callable, tmp_path: Path, name: str, delimiter: str) -> None:
    """The delimiter is found by init and by every later command."""
    table().to_csv(tmp_path / name, index=False, sep=delimiter)
    assert cli("init", tmp_path / "project", "--data", tmp_path / name).code == 0
    assert cli("check", "--config", tmp_path / "project/slicewatch.yaml").code == 0


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_a_given_format_is_kept_for_later_steps(cli: Callable, tmp_path: Path, kind: str) -> None:
    """A file whose suffix names no format is read by init, check, sfs stats and apply in the given one."""
    write_batches(tmp_path / f"rows.{kind}", [table()])
    data = (tmp_path / f"rows.{kind}").rename(tmp_path / "rows.2026-11")
    answer = cli("init", tmp_path / "project", "--data", data, "--format", kind)
    assert (answer.code, answer.err) == (0, "")
    file = tmp_path / "project/slicewatch.yaml"
    assert load(file, {}).format == kind
    assert cli("check", "--config", file).code == 0
    assert json.loads(cli("sfs", "stats", "--config", file, "--json").out)["rows"] == 200
    assert json.loads(cli("apply", data, "--config", file, "--json").out)["rows"] == 200
    other = data.rename(tmp_path / "other.2026-11")
    assert "unknown file format '.2026-11'" in cli("apply", other, "--config", file).err
    for command in ("apply", "sfs stats"):
        stated = cli(*command.split(), other, "--format", kind, "--config", file, "--json")
        assert json.loads(stated.out)["rows"] == 200


def test_an_unknown_format_is_refused_with_the_known_ones(cli: Callable, tmp_path: Path) -> None:
    """The option, the setting and a file without --format name the formats that exist."""
    data = tmp_path / "rows.csv"
    table().to_csv(data, index=False)
    for text in ("invalid choice: 'xml'", *TABLE_FORMATS):
        assert text in cli("init", tmp_path / "project", "--data", data, "--format", "xml").err
    refused = cli("init", tmp_path / "project", "--data", data.rename(tmp_path / "rows.log"))
    assert "name its format: csv, tsv, parquet, jsonl" in refused.err
    assert "--data FILE" in cli("init", tmp_path / "project", "--format", "csv").err


def test_table_formats_are_those_of_tables() -> None:
    """The options of the commands are the formats that tables are read in."""
    assert TABLE_FORMATS == FORMATS


def test_values_in_place_of_a_header_are_noted(cli: Callable, tmp_path: Path) -> None:
    """A first line of values is taken for the header, with a note."""
    lines = [f"{k * 7919 % 5000},{k * 31 % 17},{'ab'[k % 2]}" for k in range(60)]
    (tmp_path / "rows.data").write_text("\n".join(["39,40,b", *lines]))
    answer = cli("init", tmp_path / "project", "--data", tmp_path / "rows.data", "--label", "b")
    assert (answer.code, "if the first line holds values" in answer.out) == (0, True)


def test_init_writes_the_types_that_train_would_settle(cli: Callable, tmp_path: Path) -> None:
    """Defaults are omitted; a mapping has the width of codes, the spelling of numbers and the time zone."""
    rows = 60
    pd.DataFrame(
        {
            "no": [True, False, None] * 20,
            "zip": ["00501", "90210", "10001"] * 20,
            "grade": ["1.0", "2.0", "other"] * 20,
            "a: b": [0.5, 2.0, None] * 20,
            "single": np.arange(rows, dtype=np.float32) / 3,
            "large": [2**60 + n for n in range(rows)],
            "at": pd.date_range("2026-01-01", periods=rows, freq="h", tz="Europe/Berlin"),
            "on": [date(2026, 1, 1)] * rows,
            "label": ["ham", "spam"] * 30,
        }
    ).to_parquet(tmp_path / "rows.parquet")
    answer = cli("init", tmp_path / "project", "--data", tmp_path / "rows.parquet", "--label", "label")
    assert (answer.code, answer.err) == (0, "")
    text = (tmp_path / "project/slicewatch.yaml").read_text()
    for line in (
        "'no': boolean", "zip: {type: category, width: 5}", "grade: {type: category, numbers: '1.0'}",
        "'a: b': number", "single: float32", "large: integer", "at: {type: timestamp, zone: Europe/Berlin}",
        "'on': date", "label: category",
    ):  # fmt: skip
        assert f"\n  {line}\n" in text
    loaded = load(tmp_path / "project/slicewatch.yaml", {})
    assert loaded.table_schema == Schema().completed(pd.read_parquet(tmp_path / "rows.parquet"))
    assert cli("check", "--config", tmp_path / "project/slicewatch.yaml").code == 0


@pytest.mark.parametrize("name", ["Größe", "数据", "a" * 100, "2024"])
def test_any_name_of_a_folder_becomes_a_name_of_a_model(cli: Callable, tmp_path: Path, name: str) -> None:
    """Letters outside ASCII and long names are shortened to what the settings accept."""
    table().to_csv(tmp_path / "rows.csv", index=False)
    assert cli("init", tmp_path / name, "--data", tmp_path / "rows.csv").code == 0
    assert load(tmp_path / name / "slicewatch.yaml", {}).name


ODD_NAMES = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "no",
            "2024",
            "id",
            "a: b",
            "x #y",
            "Größe [m]",
            "high_a",
            "a²",
            "ﬁ",
            "class",
            "\u00a0",
            "-",
            "a\tb",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8),
)
ODD_VALUES = st.sampled_from(
    [
        lambda k: k,
        lambda k: 199 - k,
        lambda k: k * 7919 % 211,
        lambda k: k * 7919 % 5 / 3,
        lambda k: 1e-7 * (k * 7919 % 97),
        lambda k: 1e300 * (k * 7919 % 97),
        lambda k: k // 20,
        lambda k: float("inf") if k % 9 == 0 else k * 31 % 67 + 0.5,
        lambda k: float("nan") if k % 4 else k * 1.5,
        lambda k: 0 if k % 30 else k + 1,
        lambda k: None,
        lambda k: "same",
        lambda k: "yes" if k % 3 else None,
        lambda k: k % 3 == 0,
        lambda k: "True" if k % 3 else "no",
        lambda k: ["red", "green", "blue: [x]", "# no", "null"][k * k % 5],
        lambda k: [1, "1", 1.0, True][k % 4],
        lambda k: f"{k + 1000:,}",
        lambda k: f"{k % 4}%",
        lambda k: f"{k:05d}",
        lambda k: f"user {k}",
        lambda k: f'it\'s "a" text\nnumber {k}!' + " and more" * (k % 5),
        lambda k: "ALL IN CAPITALS HERE" if k % 6 == 0 else f"words of row {k}",
        lambda k: "漢字のコメントです" + chr(0x4E00 + k),
        lambda k: "  " if k % 2 else "",
        lambda k: f"2026-05-{1 + k % 28:02d}",
        lambda k: {"a": k} if k % 2 else [k],
        lambda k: 10**25 + k,
        lambda k: 10**400 if k == 50 else k,
        lambda k: 2**63 + k * 31,
    ]
)
ODD_TABLES = st.dictionaries(ODD_NAMES, ODD_VALUES, min_size=1, max_size=6).filter(
    lambda columns: len({"label", "size", *map(str.strip, columns)}) == len(columns) + 2 - ("size" in columns)
)


FILES = st.sampled_from(["rows.csv", "rows.jsonl", "rows.tsv", "rows"])
TOO_FEW = ("distinct content", "cannot be split")


def outcome_of(columns: dict[str, Callable[[int], object]], name: str, random: Random, *train: str) -> str:
    """Return what init, check and, with options for it, train print of a table with a number of many values."""
    columns = {"size": lambda k: k * 7919 % 997 / 2, **columns}
    rows = [
        {column: value(k) for column, value in columns.items()} | {"label": "ab"[k % 2]}
        for k in random.sample(range(80), 80)
    ]
    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(StringIO()) as out, redirect_stderr(out):
        data, config = Path(temporary) / name, Path(temporary) / "project/slicewatch.yaml"
        with data.open("w", newline="", encoding="utf-8") as file:
            if name == "rows.jsonl":
                file.writelines(f"{json.dumps(row)}\n" for row in rows)
            else:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name == "rows.tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        code = main(["init", str(config.parent), "--data", str(data)], environ={})
        code = code or main(["check", "--config", str(config)], environ={})
        if train and not code:
            code = main(["train", "--config", str(config), *train], environ={})
        if code and not any(reason in out.getvalue() for reason in TOO_FEW):
            return out.getvalue()
    return ""


@given(ODD_TABLES, FILES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_what_init_writes_passes_check(columns: dict[str, Callable[[int], object]], name: str, random: Random) -> None:
    """Over odd tables, init writes a project that check accepts, unless a class has too few contents."""
    assert outcome_of(columns, name, random) == ""


@given(ODD_TABLES, FILES, st.randoms(use_true_random=False), st.sampled_from(LEARNERS))
@settings(max_examples=10, deadline=None)
def test_train_runs_where_check_passes(
    columns: dict[str, Callable[[int], object]], name: str, random: Random, learner: str
) -> None:
    """Over odd tables, train accepts what check accepts, with every learner."""
    assert outcome_of(columns, name, random, "--epochs", "1", "--learner", learner) == ""
