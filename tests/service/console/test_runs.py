"""The pages of runs say why each was opened, what it was trained on, and what the gate said."""

from datetime import timedelta

import pytest

from service.console import runs as page_of
from service.console.choices import ListChoices
from service.console.render import Frame
from service.decisions import AuditEntry

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def listing(pages):
    """Renders the page of all runs."""

    def make(runs=(), older="", **choices):
        chosen = ListChoices("/runs", **choices)
        return pages.read(page_of.runs(Frame("runs", 0), "spam", chosen, runs, older, pages.now))

    return make


@pytest.fixture
def single(pages):
    """Renders the page of one run."""

    def make(shown, entries=()):
        choices = ListChoices(f"/runs/{shown.id}")
        return pages.read(page_of.run(Frame("runs", 0), shown, entries, choices, pages.now))

    return make


def entry(pages, minutes, action, actor="monitor", **detail):
    """What the audit keeps of a move."""
    return AuditEntry(pages.now + timedelta(minutes=minutes), actor, f"run.{action}", "run 3", detail)


def section(page, heading):
    """The section under a heading."""
    (found,) = [s for s in page.all("section") if [h.words() for h in s.all("h2")] == [heading]]
    return found


def test_a_row_says_cause_versions_and_outcome(pages, listing):
    """State, cause, alarms, when it was opened, champion and candidate, and what came of it."""
    page = listing([pages.run()])
    said = page.all("tbody")[0].words()
    for part in (
        "Run 3 promoted",
        "links holds 8.1 % of rows",
        "coverage alarm: alarm 7",
        "11:48:07 UTC 12 min ago",
        "4 → 5",
        "version 5 was promoted",
    ):
        assert part in said
    assert {"/runs/3", "/alarms/7"} <= {a.attributes["href"] for a in page.all("a")}


def test_a_run_without_an_outcome_says_what_it_does(pages, listing):
    """While it goes on, its state is explained; a candidate that is not there yet is not named."""
    going = pages.run(1, "training", candidate=None, outcome="", decision=None, data=None)
    said = listing([going]).all("tbody")[0].words()
    assert "A candidate is being trained." in said
    assert "4 → ?" in said


def test_no_runs_is_explained(listing):
    """Without runs the page says what opens one, and how to ask for it."""
    page = listing()
    assert "No runs yet." in page.words()
    assert page.all("pre")[0].words() == "slicewatch retrain"
    assert "None further back." in listing(before=3).words()


def test_a_run_of_many_alarms_names_some(pages, listing):
    """Beyond six, the further alarms are only counted."""
    assert "and 14 more" in listing([pages.run(alarms=tuple(range(1, 21)))]).words()


def test_every_move_is_in_the_story(pages, single):
    """Moves come in order with how long each took, who made it, and what was said."""
    told = [
        entry(pages, -12, "opened", state="waiting_for_labels", reason="links moved"),
        entry(pages, -9, "training", outcome="there are enough labels"),
        entry(pages, -9, "training", attempts=1),
        entry(pages, -8, "training", attempts=2),
        entry(pages, -6, "gated", outcome="the gate says hold"),
        entry(pages, -4, "promoted", actor="Ada", outcome="approved by Ada"),
        entry(pages, -4, "looked_at"),
    ]
    items = section(single(pages.run(), told), "What happened").all("li")
    assert [item.all("strong")[0].words() for item in items] == [
        "waiting for labels",
        "training",
        "training",
        "decided",
        "promoted",
    ]
    assert "attempt 2" in items[2].words()
    assert "11:54:07 UTC, 2 min later" in items[3].words()
    assert "by Ada" in items[4].words()
    assert "approved by Ada" in items[4].words()


def test_a_run_that_goes_on_says_what_it_waits_for_and_what_comes_next(pages, single):
    """The last step has what the run says now; the next one is told as such."""
    waiting = pages.run(
        1, "waiting_for_labels", outcome="40 of 200 labels on links", decision=None, data=None
    )
    told = [entry(pages, -12, "opened", state="waiting_for_labels", reason="links moved")]
    page = single(waiting, told)
    items = [item.words() for item in section(page, "What happened").all("li")]
    assert items[0].endswith("40 of 200 labels on links")
    assert items[1] == "training next"
    assert "every 10 s" in page.words()
    assert "It has not decided yet." in page.words()


def test_without_the_audit_its_beginning_is_still_there(pages, single):
    """A run of which the audit says nothing has one step."""
    (item,) = section(single(pages.run()), "What happened").all("li")
    assert item.words().startswith("promoted 11:48:07 UTC")


def test_what_it_was_trained_on_is_counted(pages, single):
    """Known counts are named in words, others by their key, and what is expected of the candidate is left out."""
    said = section(
        single(pages.run(data={"base_rows": 1955, "odd_key": [1, 2], "baseline": [1]})),
        "What it was trained on",
    )
    assert said.words() == "What it was trained on Rows of the base data 1,955 Odd key 1, 2"


def test_the_gate_is_a_table_slice_by_slice(pages, single):
    """n, both accuracies, the difference with its limits and plot, the verdict and its reason."""
    page = single(pages.run())
    found = section(page, "What the gate said")
    rows = [row.words() for row in found.all("tbody")[0].all("tr")]
    assert rows[0].startswith("All traffic protected 412 90.3% 372 right 92.2% 380 right +1.9 ")
    assert rows[2].endswith("−37.0 to −20.1 worse short: what was counted says worse.")
    assert rows[5].startswith("none yet protected 0 – – no rows not verified")
    assert "The margin is 2 points" in found.words()
    assert "plot: −10 to +10" in found.words()
    assert found.all("svg")[0].attributes["aria-label"] == (
        "difference +1.9 points, interval −3.0 to +6.9; margin −2.0"
    )
    assert len(found.all("svg")) == 5


def test_a_held_run_says_how_to_approve_it(pages, single):
    """The command names the candidate; no other run has it."""
    held = single(pages.run(4, "held", outcome="rare has too few rows"))
    assert [each.words() for each in held.all("pre")] == ["slicewatch models promote 5 --reason 'why'"]
    assert "Held: rare has too few rows" in held.words()
    assert single(pages.run()).all("pre") == []


def test_versions_are_links(pages, single):
    """Champion and candidate lead to their lines on the page of models."""
    hrefs = {a.words(): a.attributes["href"] for a in single(pages.run()).all("a")}
    assert (hrefs["version 4"], hrefs["version 5"]) == ("/models#version-4", "/models#version-5")


def test_hostile_words_are_only_text(pages, listing, single):
    """Reasons, outcomes, slices, data and verdicts cannot become elements."""
    verdict = pages.verdict(EVIL, "worse", (10, 5, 4, 0), reason=EVIL)
    decision = pages.decision("reject", reasons=(EVIL,), slices=(verdict,))
    told_of = {"reason": EVIL, "outcome": EVIL, "slices": (EVIL,), "data": {EVIL: {EVIL: EVIL}}}
    evil = pages.run(1, "rejected", decision=decision, **told_of)
    told = [entry(pages, -1, "rejected", actor=EVIL, outcome=EVIL)]
    for page in (listing([evil]), single(evil, told)):
        assert page.all("script") == []
        assert EVIL in page.text


def test_200_slices_have_a_row_each(pages, single):
    """Every slice that the gate looked at is in the table."""
    slices = tuple(pages.verdict(f"s{k}", "as_good", (60 + k, 50, 2, 3)) for k in range(200))
    page = single(pages.run(decision=pages.decision(slices=slices)))
    assert len(section(page, "What the gate said").all("tbody")[0].all("tr")) == 200
