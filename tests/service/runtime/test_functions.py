"""Functions that are added while the service runs."""

import asyncio
import json
import logging
import threading
from types import SimpleNamespace

import pytest

from models.features import FeatureSpec
from service.events import Estimate
from service.runtime.functions import (
    MAX_FUNCTIONS,
    FunctionAdmin,
    FunctionConflict,
    UnknownFunction,
    merge_functions,
    preview,
    read_added,
    with_added,
    within_limits,
    without,
    write_added,
)
from sfs.errors import InvalidFunction
from sfs.registry import FunctionSet
from sfs.template import template
from sfs.template_limits import TemplateLimits

FILES = FunctionSet([template("no_price", missing={"field": "price"})])
CHEAP = {"name": "cheap", "compare": {"field": "price", "below": 3}}


def test_one_more_is_added_once() -> None:
    """The same declaration a second time changes nothing."""
    added = with_added(FILES, (), CHEAP)
    assert [each.name for each in added] == ["cheap"]
    assert with_added(FILES, added, json.loads(json.dumps(CHEAP))) == added


def test_a_name_is_taken_once() -> None:
    """A file's name, and an added one with other content or metadata, are refused."""
    added = with_added(FILES, (), CHEAP)
    with pytest.raises(FunctionConflict, match="files"):
        with_added(FILES, added, {**CHEAP, "name": "no_price"})
    for other in ({**CHEAP, "owner": "me"}, {**CHEAP, "compare": {"field": "price", "below": 4}}):
        with pytest.raises(FunctionConflict, match="delete it first"):
            with_added(FILES, added, other)


def test_there_may_be_only_so_many() -> None:
    """Beyond the limit a function is refused, and the limit is named."""
    many = FunctionSet(template(f"f{k}", missing={"field": "x"}) for k in range(MAX_FUNCTIONS))
    with pytest.raises(InvalidFunction, match=str(MAX_FUNCTIONS)):
        with_added(many, (), CHEAP)


def test_only_what_was_added_can_be_taken_away() -> None:
    """A file's function and an unknown one are refused, each in its way."""
    added = with_added(FILES, (), CHEAP)
    assert without(FILES, added, "cheap") == ()
    with pytest.raises(FunctionConflict, match="restart"):
        without(FILES, added, "no_price")
    with pytest.raises(UnknownFunction, match="'dear'"):
        without(FILES, added, "dear")


def test_they_survive_the_store() -> None:
    """Stored functions are read back unchanged."""
    added = with_added(FILES, (), {**CHEAP, "owner": "me", "target": 0.9})
    (again,) = read_added(write_added(added))
    assert (again.fingerprint, again.metadata) == (added[0].fingerprint, added[0].metadata)
    assert read_added(None) == ()


def test_one_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A declaration of a later version costs that function, and a warning, not the start."""
    state = json.dumps([{"name": "new", "quantum": {}}, CHEAP]).encode()
    with caplog.at_level(logging.WARNING):
        assert [each.name for each in read_added(state)] == ["cheap"]
    assert "quantum" in caplog.text


def test_a_file_wins(caplog: pytest.LogCaptureFixture) -> None:
    """A name in both is the file's function, and that is logged."""
    mine = template("no_price", missing={"field": "cost"})
    assert merge_functions(FILES, [mine]) == FILES
    assert "'no_price'" in caplog.text


@pytest.mark.parametrize("name", ["a/b", ".", "..", "x" * 201])
def test_a_name_that_no_address_can_hold_is_refused(name: str) -> None:
    """It could be added, and never be asked for or removed again."""
    for refuse in (lambda named: with_added(FILES, (), named), lambda named: preview(named, [], "given")):
        with pytest.raises(InvalidFunction, match=r"URL|has 201 characters"):
            refuse({**CHEAP, "name": name})


def test_the_patterns_of_all_templates_have_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """One too many is refused; of stored ones those that fit stay; those of files stay in any case."""
    limits = TemplateLimits(terms=2)
    added = with_added(FILES, (), CHEAP, limits)
    other = {"name": "dear", "compare": {"field": "price", "above": 90}}
    with pytest.raises(InvalidFunction, match=r"3 different terms.*template_limits\.terms"):
        with_added(FILES, added, other, limits)
    stored = (*added, template("dear", compare={"field": "price", "above": 90}))
    assert within_limits(FILES, stored, limits) == added
    assert "'dear' is left out" in caplog.text
    same = template("same", missing={"field": "price"})
    assert within_limits(FILES, (*stored, same), limits) == (*added, same)
    assert within_limits(FILES, added, TemplateLimits(terms=0)) == ()
    assert "the functions of files are used" in caplog.text


def test_the_records_of_a_preview_are_parsed_off_the_event_loop() -> None:
    """Requests do not wait for it."""
    threads = []

    def parse(record: object) -> None:
        threads.append(threading.current_thread())
        raise InvalidFunction("no record")

    schema = SimpleNamespace(columns=["price"], parse_record=parse)
    deployment = SimpleNamespace(state=SimpleNamespace(schema=schema))
    admin = FunctionAdmin(FILES, (), deployment, writer=None, clock=None)
    with pytest.raises(InvalidFunction, match="no record"):
        asyncio.run(admin.preview(CHEAP, [{"price": 1}]))
    admin.close()
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("value", ["x" * 1_001, "two\nlines", "\u2028", "\u202ebidi"])
@pytest.mark.parametrize("field", ["owner", "family", "description"])
def test_metadata_of_a_stranger_is_one_short_line(field: str, value: str) -> None:
    """Owner and description become labels, lines and cells."""
    with pytest.raises(
        InvalidFunction, match=field + r".*(1,001 characters|U\+(000A|2028|202E), which cannot be printed)"
    ):
        with_added(FILES, (), {**CHEAP, field: value})


@pytest.mark.parametrize("text", ["5\u00a0% of prices", "価格\u3000安い", "👨\u200d👩\u200d👧 prices"])
def test_a_description_is_text_of_any_language(text: str) -> None:
    """No-break and wide spaces and joined emoji are part of it."""
    assert with_added(FILES, (), {**CHEAP, "description": text})[0].metadata.description == text


def test_all_added_functions_have_a_size() -> None:
    """The error names the size and the limit."""
    values = [f"{n:07d}" + "x" * 1_000 for n in range(17_000)]
    with pytest.raises(InvalidFunction, match=r"bytes, more than the limit of 16,777,216"):
        with_added(FILES, (), {"name": "long", "one_of": {"field": "price", "values": values}})


def test_a_preview_has_the_effective_n_of_its_records() -> None:
    """Records of one content are one: by their features, or without a model by all of their fields."""
    records = [{"price": 1, "id": k} for k in range(30)] + [{"price": 9, "id": k} for k in range(30)]
    features = [FeatureSpec("price", "number")]
    for given, specs, independent in ((records, features, 2), (records, [], 60), ([{"price": 1}] * 60, [], 1)):
        made = preview(CHEAP, given, "given", specs).coverage
        assert isinstance(made, Estimate)
        assert (made.rate.n, made.rate.effective_n) == (60, independent)


@pytest.mark.parametrize("state", [b"{", b"\xff", b"[" * 100_000, b"7", b"null"])
def test_a_damaged_entry_in_the_store_leaves_the_functions_of_files(
    state: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The service starts, and the log says that the added functions are gone."""
    assert read_added(state) == ()
    assert "add them again" in caplog.text
