"""The page of models says which version answers, how each did, who made it, and what became of the champion."""

from datetime import timedelta

import pytest

from models.registry import AliasChange
from service.console import versions as page_of
from service.console.choices import ListChoices
from service.console.render import Frame
from service.console.versions import change_rows, version_rows
from service.events import InsufficientData
from service.views.models import ModelView
from service.views.rates import estimate_of

EVIL = '"><script>alert(1)</script>'


def view(pages, version, **changes):
    """A version."""
    values = {
        "version": version,
        "hash": f"{version}" * 64,
        "created": pages.now - timedelta(days=9 - version),
        "aliases": (),
        "in_force": False,
        "classes": ("ham", "spam"),
        "references": {},
        "damaged": None,
    }
    return ModelView(**(values | changes))


def change(pages, sequence, version, kind="promote", reason="better"):
    """A change of the champion."""
    return AliasChange(sequence, version, "h", kind, reason, pages.now - timedelta(hours=9 - sequence))


@pytest.fixture
def listing(pages):
    """Renders the page."""

    def make(views=(), history=(), runs=(), accuracies=None, served_here=True, **choices):
        known = {each.version: estimate_of(54, 60) for each in views} | (accuracies or {})
        html = page_of.versions(
            Frame("models", 0),
            "spam",
            ListChoices("/models", **choices),
            version_rows(views, known, history, runs),
            change_rows(history),
            "",
            served_here,
            pages.now,
        )
        return pages.read(html)

    return make


def test_versions_stand_newest_first_with_all_that_is_known(pages, listing):
    """Aliases, since when it answers, held-out accuracy with interval and n, the run that made it, a short hash."""
    views = [view(pages, 4), view(pages, 5, aliases=("champion",), in_force=True)]
    history = [change(pages, 1, 4), change(pages, 2, 5)]
    page = listing(views, history, [pages.run(candidate=5)])
    first, second = (row.words() for row in page.all("tbody")[0].all("tr"))
    for part in (
        "Version 5 champion",
        "answers since 05:00:07 UTC",
        "90.0%",
        "54 of 60",
        "run 3 promoted",
        "2026-04-27 12:00:07 UTC",
        "555555555555",
    ):
        assert part in first
    assert "5" * 13 not in first
    assert second.startswith("Version 4 –")
    assert "a person" in second


def test_a_damaged_version_says_so(pages, listing):
    """Its row has what is wrong, and no accuracy."""
    broken = view(pages, 1, hash="", damaged=f"config.json is missing {EVIL}")
    page = listing([broken], accuracies={1: InsufficientData(0, 1, "damaged")})
    (row,) = page.all("tbody")[0].all("tr")
    assert "damaged" in row.words()
    assert "config.json is missing" in row.words()
    assert "90.0%" not in row.words()
    assert page.all("script") == []


def test_a_champion_that_is_not_loaded_yet_is_told_apart(pages, listing):
    """Where the alias is on a version that does not answer yet, the page says that."""
    row = listing([view(pages, 4)], [change(pages, 1, 4)]).all("tbody")[0].words()
    assert "champion not loaded yet" in row


def test_changes_of_the_champion_stand_newest_first_with_reasons(pages, listing):
    """Promotions and rollbacks are told apart, with the version before and why."""
    history = [
        change(pages, 1, 3),
        change(pages, 2, 4, reason=EVIL),
        change(pages, 3, 3, "rollback", "worse"),
    ]
    page = listing([view(pages, 3)], history)
    rows = [row.words() for row in page.all("tbody")[1].all("tr")]
    assert "rolled back to version 3 before: version 4 worse" in rows[0]
    assert f"promoted version 4 before: version 3 {EVIL}" in rows[1]
    assert "before" not in rows[2]
    assert page.all("script") == []


def test_of_very_many_changes_the_last_are_shown(pages):
    """A page does not grow for ever."""
    history = [change(pages, k, 1 + k % 2) for k in range(1, 90)]
    rows = change_rows(history)
    assert (len(rows), rows[0].change.sequence) == (50, 89)


def test_no_versions_are_explained(listing):
    """An empty registry says how to train; without one, models are elsewhere."""
    assert "slicewatch train" in listing().words()
    assert "served elsewhere" in listing(served_here=False).words()
    assert "None further back." in listing(before=1).words()
    assert "No version was ever promoted." in listing().words()
