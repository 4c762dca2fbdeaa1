"""Pages of retraining runs: trigger, training data, and the decision of the promotion gate."""

from datetime import timedelta

import pytest
from page_factories import EVIL, NOW, decision, read, run, section, slice_decision

from service.console.pages.runs import render_run, render_runs
from service.console.query_params import ListParams
from service.console.render import PageContext
from service.decisions import AuditEntry


@pytest.fixture
def listing():
    """Renders the page of all runs."""

    def make(runs=(), older="", **params):
        chosen = ListParams("/runs", **params)
        return read(render_runs(PageContext("runs", 0), "spam", chosen, runs, older, NOW))

    return make


@pytest.fixture
def single():
    """Renders the page of one run."""

    def make(shown, entries=()):
        params = ListParams(f"/runs/{shown.id}")
        return read(render_run(PageContext("runs", 0), shown, entries, params, NOW))

    return make


def entry(minutes, action, actor="monitor", **detail):
    """An entry of the audit log about a run."""
    return AuditEntry(NOW + timedelta(minutes=minutes), actor, f"run.{action}", "run 3", detail)


def test_a_row_shows_trigger_versions_and_outcome(listing):
    """State, trigger, alarms, opening time, champion, candidate and outcome."""
    page = listing([run()])
    said = page.all("tbody")[0].words()
    for part in (
        "Run 3 promoted",
        "coverage of links is 8.1%",
        "coverage alarm: alarm 7",
        "11:48:07 UTC 12 min ago",
        "4 → 5",
        "version 5 was promoted",
    ):
        assert part in said
    assert {"/runs/3", "/alarms/7"} <= {a.attributes["href"] for a in page.all("a")}


def test_a_run_without_an_outcome_shows_its_state(listing):
    """An active run has an explanation of its state, and no candidate yet."""
    going = run(1, "training", candidate=None, outcome="", decision=None, data=None)
    said = listing([going]).all("tbody")[0].words()
    assert "A candidate is being trained." in said
    assert "4 → ?" in said


def test_no_runs_is_explained(listing):
    """Without runs the page shows what opens one, and the command that requests it."""
    page = listing()
    assert "No runs yet." in page.words()
    assert page.all("pre")[0].words() == "slicewatch retrain"
    assert "No older runs." in listing(before=3).words()


def test_a_run_of_many_alarms_names_some(listing):
    """Beyond six, the further alarms are only counted."""
    assert "and 14 more" in listing([run(alarms=tuple(range(1, 21)))]).words()


def test_every_transition_is_listed(single):
    """Transitions come in order with their duration, actor and reason."""
    told = [
        entry(-12, "opened", state="waiting_for_labels", reason="links moved"),
        entry(-9, "training", outcome="there are enough labels"),
        entry(-9, "training", attempts=1),
        entry(-8, "training", attempts=2),
        entry(-6, "gated", outcome="the gate says hold"),
        entry(-4, "promoted", actor="Ada", outcome="approved by Ada"),
        entry(-4, "looked_at"),
    ]
    items = section(single(run(), told), "Progress").all("li")
    assert [item.all("strong")[0].words() for item in items] == [
        "waiting for labels",
        "training",
        "training",
        "evaluated",
        "promoted",
    ]
    assert "attempt 2" in items[2].words()
    assert "11:54:07 UTC, 2 min later" in items[3].words()
    assert "by Ada" in items[4].words()
    assert "approved by Ada" in items[4].words()


def test_an_active_run_shows_what_comes_next(single):
    """The last step has the current outcome, and the next step follows."""
    waiting = run(1, "waiting_for_labels", outcome="40 of 200 labels on links", decision=None, data=None)
    told = [entry(-12, "opened", state="waiting_for_labels", reason="links moved")]
    page = single(waiting, told)
    items = [item.words() for item in section(page, "Progress").all("li")]
    assert items[0].endswith("40 of 200 labels on links")
    assert items[1] == "training next"
    assert "every 10 s" in page.words()
    assert "No decision yet." in page.words()


def test_the_opening_is_clock_time(single):
    """The opening of a run is at clock time, after the data time of the alarms that caused it."""
    said = section(single(run()), "Trigger").words()
    assert "Opened 11:48:07 UTC 12 min ago; clock time, after the data time of its alarms" in said
    assert section(single(run(alarms=())), "Trigger").words().count("clock time") == 1
    assert "data time" not in section(single(run(alarms=())), "Trigger").words()


def test_without_audit_entries_one_step_is_shown(single):
    """A run without entries in the audit log has one step."""
    (item,) = section(single(run()), "Progress").all("li")
    assert item.words().startswith("promoted 11:48:07 UTC")


def test_the_training_data_are_counted(single):
    """Known counts have labels, others their key; the baseline of the candidate is left out."""
    said = section(
        single(run(data={"base_rows": 1955, "odd_key": [1, 2], "baseline": [1]})),
        "Training data",
    )
    assert said.words() == "Training data Base rows 1,955 Odd key 1, 2"


def test_the_gate_is_a_table_slice_by_slice(single):
    """n, both accuracies, the difference with limits and plot, the verdict and its reason."""
    page = single(run())
    found = section(page, "Promotion gate")
    rows = [row.words() for row in found.all("tbody")[0].all("tr")]
    assert rows[0].startswith("All traffic protected 412 90.3% 372 correct 92.2% 380 correct +1.9 ")
    assert rows[2].endswith("−37.0 to −20.1 worse short: what was counted says worse.")
    assert rows[5].startswith("none yet protected 0 – – no rows not verified")
    assert "margin of 2 points" in found.words()
    assert "plot from −10 to +10" in found.words()
    assert found.all("svg")[0].attributes["aria-label"] == (
        "difference +1.9 points, interval −3.0 to +6.9; margin −2.0"
    )
    assert len(found.all("svg")) == 5


def test_a_held_run_shows_how_to_approve_it(single):
    """The command names the candidate; runs in other states have none."""
    held = single(run(4, "held", outcome="rare has too few rows"))
    assert [each.words() for each in held.all("pre")] == ["slicewatch models promote 5 --reason 'why'"]
    assert "Awaiting approval: rare has too few rows" in held.words()
    assert single(run()).all("pre") == []


def test_versions_are_links(single):
    """Champion and candidate link to their rows on the page of models."""
    hrefs = {a.words(): a.attributes["href"] for a in single(run()).all("a")}
    assert (hrefs["version 4"], hrefs["version 5"]) == ("/models#version-4", "/models#version-5")


def test_hostile_text_is_escaped(listing, single):
    """Reasons, outcomes, slices, data and verdicts cannot become elements."""
    hostile = slice_decision(EVIL, "worse", (10, 5, 4, 0), reason=EVIL)
    decided = decision("reject", reasons=(EVIL,), slices=(hostile,))
    told_of = {"reason": EVIL, "outcome": EVIL, "slices": (EVIL,), "data": {EVIL: {EVIL: EVIL}}}
    evil = run(1, "rejected", decision=decided, **told_of)
    told = [entry(-1, "rejected", actor=EVIL, outcome=EVIL)]
    for page in (listing([evil]), single(evil, told)):
        assert page.all("script") == []
        assert EVIL in page.text


def test_200_slices_have_a_row_each(single):
    """The table has every slice of the decision."""
    slices = tuple(slice_decision(f"s{k}", "as_good", (60 + k, 50, 2, 3)) for k in range(200))
    page = single(run(decision=decision(slices=slices)))
    assert len(section(page, "Promotion gate").all("tbody")[0].all("tr")) == 200
