"""Verdicts of the learner benchmark: each target can be met and missed."""

from typing import Any

import pytest
from bench_learner import PEERS, SMALL_NET
from learner_page import (
    LearnerFigures,
    SetUpName,
    adapters_table,
    learners_table,
    peers_table,
    verdicts,
    verdicts_table,
)

SET_UPS = ("geometry K=2", "geometry K=100", "keyword text K=4", "keyword text K=100", "SMS")
COST = [
    {"network": "8-4-2", "plain_ms": 10.0, "sliced_ms": 11.4},
    {"network": "4-4-2", "plain_ms": 0.1, "sliced_ms": 1},
]
NET, EVERY = "geometry: true discs, minus 41-parameter net", "every set-up: worst slice, minus best blind peer"
ADAPTED = "slice adapter, clean functions: worst slice, minus base"


def cell(set_up: str, method: str, seed: int, overall: float, worst: float, flips: float = 0.0) -> dict[str, Any]:
    return {
        "set_up": set_up,
        "flips": flips,
        "seed": seed,
        "method": method,
        "overall": overall,
        "slices": [worst, worst + 0.02],
    }


def cells(seeds: int = 3, **changed: float) -> list[dict[str, Any]]:
    """Return cells that meet every target; ``changed`` lowers one of the figures."""
    out = []
    for seed in range(seeds):
        for name, flips in [*((each, 0.0) for each in SET_UPS), ("SMS", 0.2)]:
            for peer in PEERS:
                out.append(cell(name, peer, seed, 0.90, 0.70 if peer == "AFR" else 0.60, flips))
            for method in ("default", "slice residual"):
                worst = 0.80 - changed.get("flipped" if flips else name.replace(" ", "_"), 0.0)
                mine = cell(name, method, seed, 0.93 - changed.get("overall", 0.0), worst + 0.001 * seed, flips)
                unknown = {"overall": 0.9, "slices": [0.75 - changed.get("unknown", 0.0), 0.8]}
                mine |= {"unknown": dict.fromkeys(("0.1", "0.3", "0.5"), unknown), "form": "blend"}
                out.append(mine | ({"share": 0.6 - changed.get("share", 0.0)} if "keyword" in name else {}))
            base = {"overall": 0.90, "slices": [0.7, 0.7]}
            adapted = cell(name, "adapter on trees", seed, 0.901, 0.74 - changed.get("adapter", 0.0), flips)
            out.append(adapted | {"base": base, "form": "trees"})
        out.append(cell("geometry K=2", SMALL_NET, seed, 0.8, 0.5))
    return out


def missed(found: list[dict[str, Any]]) -> list[str]:
    """Return the targets that are not met."""
    return [each.what for each in verdicts(LearnerFigures(found), COST) if each.met is False]


def test_all_targets_can_be_met() -> None:
    """Nothing is missed, and all are measured."""
    assert not missed(cells())
    assert all(each.met for each in verdicts(LearnerFigures(cells()), COST))


@pytest.mark.parametrize(
    ("changed", "lost"),
    [
        ({"geometry_K=2": 0.16}, [NET, EVERY]),
        ({"geometry_K=100": 0.04}, ["worst slice, geometry K=100 minus K=2"]),
        ({"keyword_text_K=100": 0.035}, ["worst slice, keyword text K=100 minus K=4"]),
        ({"share": 0.2}, ["keyword text K=100: share of the true slice"]),
        ({"flipped": 0.115}, ["noisy functions: worst slice, minus best blind peer"]),
        ({"overall": 0.032}, ["noisy functions: overall, minus ERM"]),
        ({"unknown": 0.06}, ["unknown memberships: worst slice, minus best blind peer"]),
        ({"SMS": 0.08}, ["clean functions (SMS, keyword text): the same"]),
        ({"adapter": 0.02}, [ADAPTED]),
        ({"adapter": 0.046}, ["slice adapter: worst slice, minus base", ADAPTED]),
    ],
)
def test_a_target_is_missed(changed: dict[str, float], lost: list[str]) -> None:
    """A lower figure loses its own target, and no other."""
    assert sorted(missed(cells(**changed))) == sorted(lost)


def test_the_best_peer_has_the_best_mean_worst_slice() -> None:
    """It is chosen over the seeds that all methods have; differences are by seed, with their t interval."""
    figures = LearnerFigures([*cells(), cell("SMS", "default", 9, 0.1, 0.1)])
    name = SetUpName("SMS")
    assert figures.best_peer(name, [0, 1, 2]) == "AFR"
    assert figures.compared(name, "default") == [0, 1, 2]
    assert str(figures.to_best(name, "default", "worst")) == "+10.1 ±0.2"
    head, rows = learners_table(figures)
    row = dict(zip(head, next(each for each in rows if each[0] == "SMS" and each[2] == "default"), strict=True))
    assert row["best blind peer"] == "AFR 90.0 / 70.0"
    assert row["seeds"] == "3"
    assert row["overall"] == "93.0"


def test_the_cost_is_a_share_or_a_millisecond() -> None:
    """Fifteen percent of a slow network is allowed, and a millisecond of a fast one."""
    figures = LearnerFigures(cells())
    slow = [{"network": "8-4-2", "plain_ms": 10.0, "sliced_ms": 11.6}]
    last = [[*verdicts(figures, cost)][-1] for cost in (COST, slow)]
    assert [each.met for each in last] == [True, False]


def test_what_is_not_measured_is_said() -> None:
    """Peers alone give a table of peers, and no verdict on ours."""
    figures = LearnerFigures([each for each in cells() if each["method"] in PEERS])
    assert not learners_table(figures)[1]
    assert not adapters_table(figures)[1]
    assert len(peers_table(figures)[1]) == len(SET_UPS) + 1
    assert not peers_table(LearnerFigures([cell("SMS", PEERS[0], 0, 0.9, 0.8)]))[1]
    _, rows = verdicts_table(figures, COST)
    assert [row[-1] for row in rows] == ["not measured"] * (len(rows) - 1) + ["yes"]
    some = [each for each in cells() if each["method"] in PEERS or each["set_up"] == "SMS"]
    _, rows = verdicts_table(LearnerFigures(some), COST)
    assert next(row for row in rows if row[0] == EVERY)[1] == "+10.1 ±0.2 (SMS; 1 of 7 measured)"
