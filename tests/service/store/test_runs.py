"""Runs in the store, and their audit."""

from datetime import timedelta
from itertools import product
from typing import get_args

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from service.decisions import ACTIVE, AuditEntry, Run, RunState
from service.store.audit import entries
from service.store.engine import Store
from service.store.errors import RunActive, StaleRun, UnknownRun
from service.store.runs import active_run, move_run, open_run, run, runs, runs_since
from service.store.tables import runs as table
from service.store.writer import Writer

STATES: tuple[RunState, ...] = get_args(RunState)
LEGAL = {
    ("waiting_for_labels", "training"),
    ("waiting_for_labels", "skipped"),
    ("waiting_for_labels", "failed"),
    ("training", "training"),
    ("training", "gated"),
    ("training", "skipped"),
    ("training", "failed"),
    ("gated", "promoted"),
    ("gated", "held"),
    ("gated", "rejected"),
    ("gated", "failed"),
    ("held", "promoted"),
    ("held", "rejected"),
}
WAYS: dict[str, tuple[RunState, ...]] = {
    "waiting_for_labels": (),
    "skipped": ("skipped",),
    "failed": ("failed",),
    "training": ("training",),
    "gated": ("training", "gated"),
    "promoted": ("training", "gated", "promoted"),
    "held": ("training", "gated", "held"),
    "rejected": ("training", "gated", "rejected"),
}
MINUTE = timedelta(minutes=1)


def opened(writer: Writer, at, model: str = "spam", **changes) -> Run:
    values = {"state": "waiting_for_labels", "trigger": "coverage", "reason": "links doubled"} | changes
    return writer.submit(lambda c: open_run(c, model, at=at, **values)).result()


def moved(writer: Writer, at, run_id: int, expected: RunState, **changes) -> Run:
    return writer.submit(lambda c: move_run(c, run_id, expected, at, **changes)).result()


def run_in(writer: Writer, at, state: RunState) -> Run:
    """Return a new run that stands in a state."""
    current = opened(writer, at)
    for each in WAYS[state]:
        current = moved(writer, at, current.id, current.state, state=each)
    return current


def audited(store: Store) -> list[AuditEntry]:
    with store.read() as connection:
        return [entry for _, entry in entries(connection)]


def test_a_run_is_opened(store: Store, writer, start) -> None:
    """With its cause, and no attempt; as it is read again."""
    made = opened(writer, start, alarms=[1, 2], slices=["links"], since=start - MINUTE)
    reason = ("coverage", "links doubled")
    wanted = Run(1, "spam", "waiting_for_labels", *reason, start, start, (1, 2), ("links",), since=start - MINUTE)
    assert made == wanted
    with store.read() as connection:
        assert run(connection, 1) == active_run(connection, "spam") == made


def test_the_audit_tells_of_it(store: Store, writer, start) -> None:
    """The entry has the actor, the reason, and the alarms answered."""
    opened(writer, start, trigger="request", alarms=[1], slices=["links"], actor="ann")
    (entry,) = audited(store)
    assert (entry.at, entry.actor, entry.action, entry.subject) == (start, "ann", "run.opened", "run 1")
    assert entry.detail == {
        "model": "spam",
        "state": "waiting_for_labels",
        "trigger": "request",
        "reason": "links doubled",
        "alarms": [1],
        "slices": ["links"],
        "since": None,
    }


def test_everything_that_is_known_of_a_run_is_kept(store: Store, writer, start, decision) -> None:
    """Versions, data and decision are stored exactly, and earlier values stay."""
    opened(writer, start, state="training")
    moved(writer, start, 1, "training", state="training", attempts=1, champion=4, data={"base_rows": 900})
    later = moved(writer, start + MINUTE, 1, "training", state="gated", candidate=5, decision=decision(), outcome="so")
    assert (later.attempts, later.champion, later.candidate) == (1, 4, 5)
    assert (later.data, later.decision, later.outcome) == ({"base_rows": 900}, decision(), "so")
    assert (later.opened_at, later.updated_at) == (start, start + MINUTE)
    with store.read() as connection:
        assert run(connection, 1) == later


def test_the_audit_tells_of_every_move(store: Store, writer, start, decision) -> None:
    """Transitions are audited with their changes; notes are not."""
    opened(writer, start, state="training")
    moved(writer, start, 1, "training", outcome="a third is done")
    moved(writer, start, 1, "training", state="gated", decision=decision(), actor="job")
    gated, opening = audited(store)
    assert (gated.actor, gated.action, opening.action) == ("job", "run.gated", "run.opened")
    assert gated.detail["from"] == "training"
    assert gated.detail["decision"]["slices"][1]["pairs"]["n"] == 12


@pytest.mark.parametrize("state", [s for s in STATES if s in ACTIVE])
def test_a_model_has_one_active_run(store: Store, writer, start, state: RunState) -> None:
    """Every unfinished state blocks another run of the same model."""
    run_in(writer, start, state)
    with pytest.raises(RunActive, match=f"run 1 of model 'spam' is {state}: wait"):
        opened(writer, start)
    assert opened(writer, start, model="other").id == 2
    assert writer.refusal is None


@pytest.mark.parametrize("state", [s for s in STATES if s not in ACTIVE])
def test_after_the_end_another_can_be_opened(store: Store, writer, start, state: RunState) -> None:
    """Finished and held runs block nothing."""
    assert run_in(writer, start, state).state == state
    assert opened(writer, start).id == 2


@pytest.mark.parametrize("state", sorted(set(STATES) - {"waiting_for_labels", "training"}))
def test_no_run_begins_elsewhere(writer, start, state: RunState) -> None:
    """A run starts waiting or training."""
    with pytest.raises(ValueError, match=f"not in '{state}'"):
        opened(writer, start, state=state)


def test_a_run_goes_only_where_it_may(store: Store, writer, start) -> None:
    """All transitions between all states: an invalid one changes nothing."""
    for state, target in product(STATES, STATES):
        current = run_in(writer, start, state)
        if (state, target) in LEGAL:
            current = moved(writer, start, current.id, state, state=target)
            assert current.state == target
        else:
            with pytest.raises(ValueError, match=f"a run cannot go from '{state}' to '{target}'"):
                moved(writer, start, current.id, state, state=target)
        with store.read() as connection:
            assert run(connection, current.id) == current
        if current.state in ACTIVE:
            moved(writer, start, current.id, current.state, state="failed")


def test_a_run_that_is_elsewhere_is_not_moved(store: Store, writer, start) -> None:
    """Of two moves from one state the second is refused, and nothing is audited twice."""
    opened(writer, start)
    moved(writer, start, 1, "waiting_for_labels", state="training")
    with pytest.raises(StaleRun, match="run 1 is training, no longer waiting_for_labels"):
        moved(writer, start, 1, "waiting_for_labels", state="skipped")
    assert [entry.action for entry in audited(store)] == ["run.training", "run.opened"]


def test_an_unknown_run_is_refused(store: Store, writer, start) -> None:
    """The error names the id; reading it returns None."""
    with pytest.raises(UnknownRun, match="unknown run 7"):
        moved(writer, start, 7, "training", state="failed")
    with store.read() as connection:
        assert (run(connection, 7), active_run(connection, "spam")) == (None, None)


def test_runs_are_read_page_by_page_and_since(store: Store, writer, start) -> None:
    """Pages are newest first, of one model; ``runs_since`` includes its moment."""
    for minutes in range(4):
        opened(writer, start + minutes * MINUTE)
        moved(writer, start, minutes + 1, "waiting_for_labels", state="skipped")
    opened(writer, start, model="other")
    with store.read() as connection:
        assert [each.id for each in runs(connection, "spam", limit=2)] == [4, 3]
        assert [each.id for each in runs(connection, "spam", before=3)] == [2, 1]
        assert [each.id for each in runs_since(connection, "spam", start + 2 * MINUTE)] == [4, 3]


def test_the_database_itself_refuses_a_second_active_run(store: Store, writer, start) -> None:
    """A unique index holds even for writes past this code."""
    opened(writer, start)

    def double(connection: Connection) -> None:
        (row,) = connection.execute(select(*(c for c in table.c if c.name != "id"))).mappings().all()
        for state in STATES:
            if state in ACTIVE:
                with pytest.raises(IntegrityError), connection.begin_nested():
                    connection.execute(insert(table), dict(row) | {"state": state})
            else:
                connection.execute(insert(table), dict(row) | {"state": state})

    writer.submit(double).result()
    with store.read() as connection:
        assert len(runs(connection, "spam")) == 1 + len(STATES) - len(ACTIVE)


def test_a_move_whose_transaction_fails_did_not_happen(store: Store, writer, start) -> None:
    """Neither the run nor the audit changes."""
    current = opened(writer, start)

    def fail(connection: Connection) -> None:
        move_run(connection, 1, "waiting_for_labels", start, state="training")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.submit(fail).result()
    with store.read() as connection:
        assert run(connection, 1) == current
    assert len(audited(store)) == 1
