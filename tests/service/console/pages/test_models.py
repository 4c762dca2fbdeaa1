"""Page of model versions: status, held-out accuracy, origin, and the history of the champion."""

from datetime import timedelta

import pytest
from page_factories import EVIL, NOW, read, run

from models.registry import AliasChange
from service.console.pages.models import change_rows, render_models, version_rows
from service.console.query_params import ListParams
from service.console.render import PageContext
from service.events import InsufficientData
from service.views.models import ModelView
from service.views.slices import estimate_of
from sfs.intervals import Rate


def view(version, **changes):
    """A version."""
    values = {
        "version": version,
        "hash": f"{version}" * 64,
        "created": NOW - timedelta(days=9 - version),
        "aliases": (),
        "in_force": False,
        "classes": ("ham", "spam"),
        "references": {},
        "damaged": None,
    }
    return ModelView(**(values | changes))


def change(sequence, version, kind="promote", reason="better"):
    """A change of the champion."""
    return AliasChange(sequence, version, "h", kind, reason, NOW - timedelta(hours=9 - sequence))


@pytest.fixture
def listing():
    """Renders the page."""

    def make(views=(), history=(), runs=(), accuracies=None, **params):
        known = {each.version: estimate_of(Rate(54, 60)) for each in views} | (accuracies or {})
        html = render_models(
            PageContext("models", 0),
            "spam",
            ListParams("/models", **params),
            version_rows(views, known, history, runs),
            change_rows(history),
            "",
            NOW,
        )
        return read(html)

    return make


def test_versions_are_listed_newest_first(listing):
    """Aliases, time in service, held-out accuracy with interval and n, the run that trained it, a short hash."""
    views = [view(4), view(5, aliases=("champion",), in_force=True)]
    history = [change(1, 4), change(2, 5)]
    page = listing(views, history, [run(candidate=5)])
    first, second = (row.words() for row in page.all("tbody")[0].all("tr"))
    for part in (
        "Version 5 champion",
        "in service since 05:00:07 UTC",
        "90.0%",
        "54 of 60",
        "run 3 promoted",
        "2026-04-27 12:00:07 UTC",
        "555555555555",
    ):
        assert part in first
    assert "5" * 13 not in first
    assert second.startswith("Version 4 –")
    assert "by hand" in second


def test_a_damaged_version_says_so(listing):
    """Its row has the damage, and no accuracy."""
    broken = view(1, hash="", damaged=f"config.json is missing {EVIL}")
    page = listing([broken], accuracies={1: InsufficientData(0, 1, "damaged")})
    (row,) = page.all("tbody")[0].all("tr")
    assert "damaged" in row.words()
    assert "config.json is missing" in row.words()
    assert "90.0%" not in row.words()
    assert page.all("script") == []


def test_a_champion_that_is_not_loaded_yet_is_marked(listing):
    """The alias is on a version that is not in service yet."""
    row = listing([view(4)], [change(1, 4)]).all("tbody")[0].words()
    assert "champion not loaded yet" in row


def test_changes_of_the_champion_are_listed_newest_first(listing):
    """Promotions and rollbacks have the version before and a reason."""
    history = [
        change(1, 3),
        change(2, 4, reason=EVIL),
        change(3, 3, "rollback", "worse"),
    ]
    page = listing([view(3)], history)
    rows = [row.words() for row in page.all("tbody")[1].all("tr")]
    assert "rolled back to version 3 replaced version 4 worse" in rows[0]
    assert f"promoted version 4 replaced version 3 {EVIL}" in rows[1]
    assert "replaced" not in rows[2]
    assert page.all("script") == []


def test_of_many_changes_the_latest_are_shown():
    """The history on the page has a limit."""
    history = [change(k, 1 + k % 2) for k in range(1, 90)]
    rows = change_rows(history)
    assert (len(rows), rows[0][0].sequence) == (50, 89)


def test_no_versions_are_explained(listing):
    """An empty registry shows how to train, and how to log predictions of a model served elsewhere."""
    assert "slicewatch train" in listing().words()
    assert "served elsewhere" in listing().words()
    assert "No older versions." in listing(before=1).words()
    assert "No version was promoted yet." in listing().words()
