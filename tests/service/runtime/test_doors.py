"""One row, one answer: rows of the training table through every door, in every spelling that the rule allows."""

import asyncio
import csv
import json
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from factories import label_history
from pyarrow import parquet

from models.bundle.model_bundle import ModelBundle
from models.registry import ModelRegistry
from service.__main__ import main
from service.settings.loading import load
from service.store.engine import Store
from service.store.queries import prediction
from sfs.record import text_of

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROWS = 90
DRAWS = 2
MARKS = ("", " ", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")

Row = dict[str, Any]


def single(number: float) -> float:
    """Return a number as a 32-bit float has it."""
    return float(np.float32(number))


POOLS: dict[str, Sequence[Any]] = {
    "text": [
        "buy cheap pills",
        " so  much love\n",
        'it\'s "a, b"',
        "NA",
        "1.0",
        "True",
        "o\u0308l o\u00f6l",
        "\U0001f600!",
        None,
    ],
    "likes": [0.0, 2.5, -1e-7, 1e22, 0.1, 3.0, 400.0, None],
    "views": [0, -4, 2**53, 2**53 + 1, 10**17 + 1, 1 - 10**18, None],
    "single": [*map(single, (0.1, 0.2, 1 / 3, 3.0, 1e-20)), None],
    "active": [True, False, None],
    "odd": ["True", "False", "maybe", None],
    "zip": ["00501", "01010", "90210", "10001", None],
    "tier": ["gold", "caf\u00e9", "\u00c5", "NA", "a,b", 'say "x"', "1,5", None],
    "grade": ["1.0", "2.0", "none", None],
    "level": ["1", "2", "low", None],
    "note": ["seen", "call back", None],
}
KINDS = {
    "text": "text", "likes": "number", "views": "number", "single": "number", "active": "category",
    "odd": "category", "zip": "category", "tier": "category", "grade": "category", "level": "category",
}  # fmt: skip
CLASSES: Sequence[Sequence[Any]] = (
    ["ham", "spam"], [True, False], [1, 2, 3], [0.5, 1.0], ["caf\u00e9", "NA", "True", "7"], ["007", "7", "other"],
)  # fmt: skip

MEMBERS: dict[str, Callable[[Row], bool]] = {
    "many": lambda x: x["likes"] is not None and x["likes"] >= 3,
    "no_likes": lambda x: x["likes"] is None,
    "large": lambda x: x["views"] is not None and x["views"] >= 10**17,
    "no_views": lambda x: x["views"] is None,
    "is_active": lambda x: x["active"] is True,
    "not_active": lambda x: x["active"] is False,
    "surely": lambda x: x["odd"] == "True",
    "west": lambda x: x["zip"] is not None and x["zip"].startswith("9"),
    "fancy": lambda x: x["tier"] in ("caf\u00e9", "\u00c5"),
    "not_available": lambda x: x["tier"] == "NA",
    "no_tier": lambda x: x["tier"] is None,
    "short": lambda x: x["text"] is not None and len(x["text"]) < 8,
    "indented": lambda x: x["text"] is not None and x["text"].startswith(" "),
    "first_grade": lambda x: x["grade"] == "1.0",
    "first_level": lambda x: x["level"] == "1",
    "calls": lambda x: x["note"] == "call back",
    "no_note": lambda x: x["note"] is None,
    "undated": lambda x: x["placed"] is None,
    "exact": lambda x: x["views"] is not None and x["views"] % 2 == 1,
    "rounded": lambda x: x["single"] is not None and x["single"] == single(x["single"]),
    "east": lambda x: x["zip"] == "00501",
    "true": lambda x: x["active"] is True,
}
TEMPLATES = """\
slices:
  - {name: many, compare: {field: likes, at_least: 3}}
  - {name: no_likes, missing: {field: likes}}
  - {name: large, compare: {field: views, at_least: 100000000000000000}}
  - {name: no_views, missing: {field: views}}
  - {name: is_active, one_of: {field: active, values: [true]}}
  - {name: not_active, one_of: {field: active, values: [false]}}
  - {name: surely, one_of: {field: odd, values: ["True"]}}
  - {name: west, regex: {field: zip, pattern: "^9"}}
  - {name: fancy, one_of: {field: tier, values: ["caf\u00e9", "\u00c5"]}}
  - {name: not_available, one_of: {field: tier, values: ["NA"]}}
  - {name: no_tier, missing: {field: tier}}
  - {name: short, length: {field: text, unit: characters, below: 8}}
  - {name: indented, regex: {field: text, pattern: "^ "}}
  - {name: first_grade, one_of: {field: grade, values: ["1.0"]}}
  - {name: first_level, one_of: {field: level, values: ["1"]}}
  - {name: calls, keyword: {field: note, words: [call]}}
  - {name: no_note, missing: {field: note}}
  - {name: undated, missing: {field: placed}}
"""
FUNCTIONS = '''\
from sfs import slicing_function


@slicing_function(budget_ms=60_000)
def exact(x):
    """An odd number of views."""
    return isinstance(x.views, int) and x.views % 2 == 1


@slicing_function(budget_ms=60_000)
def rounded(x):
    """A number that 32 bits hold."""
    import numpy as np

    return x.single is not None and x.single == float(np.float32(x.single))


@slicing_function(budget_ms=60_000)
def east(x):
    """One code."""
    return x.zip == "00501"


@slicing_function(budget_ms=60_000)
def true(x):
    """Truth itself."""
    return x.active is True
'''
SETTINGS = f"""\
name: doors
data: DATA
label: label
features: {json.dumps(KINDS)}
functions: [slices.yaml, slices.py]
learner: {{kind: erm, epochs: 1, hidden: [4]}}
function_limits: {{least_ms: 60000, hold_ms: 60000}}
serve: {{port: 9}}  # no service answers there: labels go to the store
"""


def make_rows(random: Random, *, halves: bool = False) -> list[Row]:
    """Return rows of every kind of column, some columns without missing values; with 32-bit floats or without."""
    pools = {
        name: pool if random.random() < 0.7 else [value for value in pool if value is not None]
        for name, pool in POOLS.items()
    }
    if halves:
        pools["single"] = [None if value is None else np.float32(value) for value in pools["single"]]
    classes = random.choice(CLASSES)
    rows = []
    for k in range(ROWS):
        row = {name: pool[k % len(pool)] if k < len(pool) else random.choice(pool) for name, pool in pools.items()}
        if isinstance(row["text"], str) and random.random() < 0.8:
            row["text"] += f" {k}"
        row["placed"] = None if k % 7 == 3 else START + timedelta(hours=k)
        rows.append(row | {"label": classes[k % len(classes)]})
    return random.sample(rows, ROWS)


def texts_of(name: str, value: Any) -> list[str]:
    """Return the texts that a value may have in a file, the plainest first."""
    if name == "placed":
        return ["", " "] if value is None else [value.isoformat(), f" {value.isoformat()}\t"]
    if name in ("text", "id"):
        return [value or ""]
    if value is None:
        return list(MARKS) if name in ("likes", "views", "single", "active") else ["", " "]
    if isinstance(value, bool):
        texts = [str(value), str(value).lower(), str(value).upper()]
    elif isinstance(value, (float, np.float32)):
        texts = [str(value), repr(float(value)), f"{value:.17e}"]
    elif isinstance(value, int):
        texts = [str(value)]
    else:
        texts = [value, unicodedata.normalize("NFD", value)]
    return [*texts, *(f" {text}\t" for text in texts)]


def value_of(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return float(value) if isinstance(value, np.float32) else value


def values_of(name: str, value: Any) -> list[Any]:
    """Return the JSON values that a value may be sent as, its own first."""
    values = [value_of(value), *texts_of(name, value)]
    if value is None:
        return values
    if isinstance(value, bool):
        values += [int(value), float(value), str(int(value)), f" {float(value)}"]
    elif name == "odd" and value in ("True", "False"):
        values += [value == "True", value.upper(), f" {value.lower()}"]
    elif isinstance(value, int) and int(float(value)) == value:
        values += [float(value), f"{value}.0", f"{value:+}"]
    elif isinstance(value, float) and value.is_integer():
        values += [int(value), f"{value:+}"]
    elif name == "zip":
        values += [int(value), float(value), str(int(value)), f"{int(value)}.0"]
    elif name in ("grade", "level") and value[0].isdigit():
        values += [float(value), int(float(value)), f"{float(value):g}", f"{float(value)} "]
    elif name == "label" and value in ("7", "True"):
        values.append({"7": 7, "True": True}[value])
    return values


def json_row(random: Random, row: Row) -> Row:
    """Return the fields of a row in any spelling."""
    return {name: random.choice(values_of(name, value)) for name, value in row.items() if name != "label"}


def write_csv(random: Random, file: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Write rows with every value in any text."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=random.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        writer.writerow(names)
        for row in rows:
            writer.writerow([random.choice(texts_of(name, row[name])) for name in names])


def write_jsonl(random: Random, file: Path, rows: Sequence[Row], names: Sequence[str], *, plain: bool = False) -> None:
    """Write rows as JSON, plainly or in any spelling; then a missing value may be an absent key."""
    with file.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            sent = {name: values_of(name, row[name]) for name in names}
            if number and not plain:
                sent = {name: sent[name] for name in names if row[name] is not None or random.random() < 0.7}
            record = {name: values[0] if plain else random.choice(values) for name, values in sent.items()}
            stream.write(json.dumps(record, ensure_ascii=random.random() < 0.5) + "\n")


def write_parquet(
    random: Random, file: Path, rows: Sequence[Row], names: Sequence[str], *, plain: bool = False
) -> None:
    """Write rows with columns of their own type or, unless plainly, of text or numbers."""
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        if not plain and random.random() < 0.4:
            values = [random.choice(texts_of(name, value)) for value in values]
        elif not plain and name in ("zip", "active") and random.random() < 0.5:
            values = [None if value is None else int(value) for value in values]
        columns[name] = pa.array(values)
        if name == "tier" and random.random() < 0.5:
            columns[name] = columns[name].dictionary_encode()
    parquet.write_table(pa.table(columns), file)


@dataclass(frozen=True)
class Answer:
    """Answer to a row."""

    probabilities: dict[str, float]
    slices: frozenset[str]
    unknown: frozenset[str]


@dataclass(frozen=True)
class Project:
    """Project with a model trained on rows in a file of a format."""

    file: Path
    rows: list[Row]
    data: Path

    @property
    def bundle(self) -> ModelBundle:
        return ModelRegistry(self.file.parent / ".slicewatch/registry", name="doors").get(1)

    def run(self, *argv: Any) -> None:
        """Run a command."""
        with redirect_stdout(StringIO()) as out:
            words = [*map(str, argv), "--config", str(self.file)]
            code = main(words, now=lambda: START + timedelta(hours=1), environ={})
        assert code == 0, out.getvalue()

    def applied(self, file: Path) -> list[Answer]:
        """Return the answers of ``apply`` to a file."""
        out = file.with_name("answers.jsonl")
        self.run("apply", file, "--out", out, "--with-predictions")
        found = [json.loads(line) for line in out.read_text().splitlines()]
        return [
            Answer(
                {name.removeprefix("p_"): p for name, p in row.items() if name.startswith("p_")},
                frozenset(name for name in MEMBERS if row[name] is True),
                frozenset(name for name in MEMBERS if row[name] is None),
            )
            for row in found
        ]


WRITERS: dict[str, Callable[..., None]] = {
    "csv": write_csv,
    "jsonl": partial(write_jsonl, plain=True),
    "parquet": partial(write_parquet, plain=True),
}


def trained(folder: Path, random: Random, form: str, rows: list[Row]) -> Project:
    """Train a model on rows in a file of a format."""
    folder.mkdir()
    project = Project(folder / "slicewatch.yaml", rows, folder / f"rows.{form}")
    WRITERS[form](random, project.data, rows, list(rows[0]))
    (folder / "slices.yaml").write_text(TEMPLATES)
    (folder / "slices.py").write_text(FUNCTIONS)
    project.file.write_text(SETTINGS.replace("DATA", project.data.name))
    project.run("train")
    return project


def of_response(response: Any) -> list[Answer]:
    """Return the answers in a response."""
    return [
        Answer(each["probabilities"], frozenset(each["slices"]), frozenset(each["unknown_slices"]))
        for each in response["predictions"]
    ]


def agree(found: Sequence[Answer], expected: Sequence[Answer], sent: Sequence[Any], *, p: bool = True) -> None:
    """Fail at the first row with another answer, and show what was sent."""
    assert len(found) == len(expected)
    for got, wanted, row in zip(found, expected, sent, strict=True):
        assert (got.slices, got.unknown) == (wanted.slices, wanted.unknown), row
        assert got.probabilities == pytest.approx(wanted.probabilities, abs=1e-5), row


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("seed", range(4))
def test_any_row_has_one_answer_at_every_door(tmp_path: Path, serving: Any, seed: int, form: str) -> None:
    """Files of all formats, requests, external predictions and labels are read as the training table was."""
    random = Random(f"{seed} {form}")
    rows = make_rows(random, halves=form == "parquet")
    project = trained(tmp_path / "project", random, form, rows)
    expected = project.applied(project.data)
    for row, answer in zip(rows, expected, strict=True):
        assert answer.slices == {name for name, holds in MEMBERS.items() if holds(row)}, row
        assert not answer.unknown
    for number in range(DRAWS):
        names = random.sample(list(rows[0]), len(rows[0]))
        for writer in (write_csv, write_jsonl, write_parquet):
            sent = tmp_path / f"{number}.{writer.__name__.removeprefix('write_')}"
            writer(random, sent, rows, names)
            agree(project.applied(sent), expected, [(sent.name, row) for row in rows])

    classes = [text_of(row["label"]) for row in rows]
    ids = [f"row {k}" for k in range(ROWS)]
    spelled = {
        name: [text for text in values_of("label", row["label"]) if isinstance(text, str)]
        for name, row in zip(classes, rows, strict=True)
    }

    async def requests() -> None:
        async with serving(project.file) as running:
            for number in range(DRAWS):
                sent = [json_row(random, row) for row in rows]
                agree(of_response(await running.post("/v1/predict", {"instances": sent})), expected, sent)
                response = await running.post("/v1/predict", {"instances": sent, "ids": ids})
                assert [each["repeated"] for each in response["predictions"]] == [number > 0] * ROWS, sent
                external = [
                    {
                        "id": f"external {id_}",
                        "features": record,
                        "label": random.choice(values_of("label", row["label"])),
                        "probabilities": {random.choice(spelled[c]): p for c, p in answer.probabilities.items()},
                    }
                    for id_, record, row, answer in zip(ids, sent, rows, expected, strict=True)
                ]
                response = await running.post("/v1/predictions", {"predictions": external})
                agree(of_response(response), expected, external)
                assert [each["label"] for each in response["predictions"]] == classes
                assert [each["repeated"] for each in response["predictions"]] == [number > 0] * ROWS, sent
            labels = [
                {"id": id_, "label": random.choice(values_of("label", row["label"]))}
                for id_, row in zip(ids, rows, strict=True)
            ]
            response = await running.post("/v1/labels", {"labels": labels})
            assert {each["outcome"] for each in response["labels"]} == {"accepted"}, labels
            with running.runtime.store.read() as connection:
                for id_, row in zip(ids, rows, strict=True):
                    logged = json.loads(prediction(connection, "doors", id_).features)
                    assert logged == {name: value_of(value) for name, value in row.items() if name != "label"}

    asyncio.run(requests())
    for number, name in enumerate(sorted(set(classes))):
        part = [{"id": f"external {ids[k]}", "label": rows[k]["label"]} for k in range(ROWS) if classes[k] == name]
        writer, form = random.choice([(write_csv, "csv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")])
        writer(random, tmp_path / f"labels{number}.{form}", part, ["id", "label"])
        project.run("labels", tmp_path / f"labels{number}.{form}")
    with Store(load(project.file, {}).store) as store, store.read() as connection:
        for id_, label in zip(ids, classes, strict=True):
            for each in (id_, f"external {id_}"):
                (event,) = label_history(connection, "doors", each)
                assert (event.label.label, event.outcome) == (label, "accepted")


@pytest.mark.parametrize("seed", [5, 6])
def test_a_table_trains_to_one_model_in_every_format(tmp_path: Path, seed: int) -> None:
    """CSV in any spelling, JSON lines and Parquet give one schema, one set of features, and one network."""
    rows = make_rows(Random(seed))
    bundles = [trained(tmp_path / form, Random(seed), form, rows).bundle for form in WRITERS]
    first = bundles[0]
    for bundle in bundles[1:]:
        columns = [
            [column for column in each.schema.columns.values() if column.name != "placed"] for each in (first, bundle)
        ]
        assert columns[0] == columns[1]
        assert bundle.featurizer.to_json() == first.featurizer.to_json()
        assert bundle.reference == first.reference
        assert bundle.files["weights.safetensors"] == first.files["weights.safetensors"]
