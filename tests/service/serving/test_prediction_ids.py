"""Identifiers of our own."""

from datetime import UTC, datetime, timedelta
from os import urandom
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from service.serving.prediction_factory import uuid7, uuid7s

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
    st.binary(min_size=10, max_size=10),
)
def test_they_are_uuids_of_version_7_that_tell_their_time(at: datetime, random: bytes) -> None:
    """The variant and version are right, and the first 48 bits are Unix milliseconds."""
    made = UUID(uuid7(at, random))
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_all_74_random_bits_are_kept() -> None:
    """Any of them makes another identifier."""
    made = {uuid7(AT, (1 << bit).to_bytes(10, "big")) for bit in range(80)}
    assert len(made) == 74 + 1


def test_they_are_ordered_by_time() -> None:
    """Text of a later millisecond is greater, whatever the random part."""
    assert uuid7(AT, b"\xff" * 10) < uuid7(AT + timedelta(milliseconds=1), bytes(10))


def test_identifiers_of_one_time_differ() -> None:
    """Each has random bytes of its own."""
    assert len(set(uuid7s(AT, 1000, urandom))) == 1000
