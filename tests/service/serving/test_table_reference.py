"""Reference of a model that is served elsewhere: which table, which rates, and how it is kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_counts, make_settings

from service.errors import ServiceError
from service.serving.table_reference import COUNTS, FOLDER, GIVEN, SAMPLE, ReferenceSource, TableReference
from sfs.intervals import Rate
from sfs.schema import Column, Schema

EVERY = make_counts(1000, 1000, 0, 900, 500, 450, 480, 470)
SHORT = make_counts(1000, 100, 0, 900, 40, 30, 36, 35)
RARE = make_counts(1000, 20, 0, 900, 10, 9, 9, 9)
BROKEN = make_counts(1000, 0, 1000, 0, 0, 0, 0, 0)
REFERENCE = TableReference(
    "rows.csv",
    "key",
    1000,
    True,
    7,
    {"short": "1", "rare": "1", "broken": "1"},
    {"__all__": EVERY, "short": SHORT, "rare": RARE, "broken": BROKEN},
    Schema([Column("likes", "integer")]),
    (({"likes": 3}, "ham"), ({"likes": None}, None)),
)
LIVE = {"short": "1", "rare": "1", "broken": "1"}


def test_coverage_is_expected_of_unchanged_functions() -> None:
    """The effective n is the number of contents; a function without known rows, or another version, has none."""
    assert REFERENCE.coverages(LIVE) == {"short": Rate(100, 1000, 900), "rare": Rate(20, 1000, 900)}
    assert REFERENCE.coverages({"short": "2", "rare": "1"}) == {"rare": Rate(20, 1000, 900)}


def test_accuracy_is_expected_of_the_version_that_predicted() -> None:
    """Slices with an effective n below 30 are left to the first labels."""
    assert REFERENCE.accuracies(LIVE, 7) == {"__all__": Rate(450, 500, 470), "short": Rate(30, 40, 35)}
    assert REFERENCE.accuracies(LIVE, 8) == {}
    assert replace(REFERENCE, has_predictions=False).accuracies(LIVE, 7) == {}


def test_a_reference_is_kept_in_files(tmp_path: Path) -> None:
    """It is loaded as it was saved; without files there is none."""
    assert TableReference.load(tmp_path) is None
    (tmp_path / COUNTS).write_text(REFERENCE.to_json())
    lines = [json.dumps({"features": record, "label": label}) for record, label in REFERENCE.sample]
    (tmp_path / SAMPLE).write_text("\n".join(lines))
    assert TableReference.load(tmp_path) == REFERENCE


@pytest.mark.parametrize("text", ["{", "[]", '{"counts": {}}', '{"counts": {"a": 1}}'])
def test_a_damaged_reference_is_an_error(tmp_path: Path, text: str) -> None:
    """It says that the slices are counted again."""
    (tmp_path / COUNTS).write_text(text)
    (tmp_path / SAMPLE).write_text("")
    with pytest.raises(ServiceError, match="damaged, and is counted again"):
        TableReference.load(tmp_path)


def test_the_source_is_the_table_unless_a_file_was_set(tmp_path: Path) -> None:
    """A path in the description cannot leave its folder; a damaged description is an error."""
    settings = make_settings(tmp_path)
    assert ReferenceSource.of(settings) == ReferenceSource(tmp_path / "data.csv", "data.csv", "table", "label")
    given = tmp_path / FOLDER / GIVEN
    given.parent.mkdir()
    values = {"path": "../../given-1.csv", "name": "v.csv", "format": "table", "label": "y", "predicted": "p"}
    given.write_text(json.dumps({**values, "version": 7}))
    path = given.parent / "given-1.csv"
    assert ReferenceSource.of(settings) == ReferenceSource(path, "v.csv", "table", "y", "p", 7)
    given.write_text("{}")
    with pytest.raises(ServiceError, match="set the reference again"):
        ReferenceSource.of(settings)


def test_the_key_is_that_of_contents_columns_and_settings(tmp_path: Path) -> None:
    """A table that was only moved or touched is the same; with another row, column or kind of a feature it is not."""
    settings = make_settings(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("x\n1\n")
    first, second = (ReferenceSource(tmp_path / name / "rows.csv", "rows.csv", "table", "y") for name in ("a", "b"))
    assert first.key(settings) == second.key(settings)
    assert replace(first, predicted="p").key(settings) != first.key(settings)
    assert first.key(replace(settings, features={"text": "category"})) != first.key(settings)
    second.path.write_text("x\n2\n")
    assert first.key(settings) != second.key(settings)
