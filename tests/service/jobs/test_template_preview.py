"""Application of a declared function in a child process."""

from threading import Event

import pytest

from service.errors import Stopping
from service.jobs.template_preview import apply_in_child
from sfs.errors import InvalidFunction
from sfs.template_limits import TEMPLATE_LIMITS, TemplateLimits

SHORT = {"name": "short", "length": {"field": "text", "below": 3}}


def test_a_function_is_applied_to_records() -> None:
    """Members by position, and unknown rows with their reasons, are returned."""
    result = apply_in_child(SHORT, [{"text": "a"}, {"text": "long"}, {}], TEMPLATE_LIMITS, 60)
    assert (list(result.members), list(result.unknown), dict(result.reasons)) == ([0], [2], {"absent field": 1})
    assert len(result.fingerprint) == 64


def test_a_wrong_declaration_is_refused_with_its_reason() -> None:
    """The message is that of the declaration; a limit of the patterns is one."""
    with pytest.raises(InvalidFunction, match="below must be a number"):
        apply_in_child({**SHORT, "length": {"field": "text", "below": "x"}}, [], TEMPLATE_LIMITS, 60)
    regex = {"name": "x", "regex": {"field": "text", "pattern": "a"}}
    with pytest.raises(InvalidFunction, match="pattern_mb"):
        apply_in_child(regex, [], TemplateLimits(pattern_mb=0.1), 60)


def test_a_preview_ends_with_its_time_or_the_service() -> None:
    """The process is killed, and the message says what to do."""
    stop = Event()
    stop.set()
    with pytest.raises(InvalidFunction, match=r"not finished within .*simplify the patterns"):
        apply_in_child(SHORT, [{"text": "a"}], TEMPLATE_LIMITS, 0.0)
    with pytest.raises(Stopping, match="again later"):
        apply_in_child(SHORT, [{"text": "a"}], TEMPLATE_LIMITS, 60.0, stop=stop)
