"""Decisions of the promotion gate, and their reasons."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from service.decisions import Decision, PairedCounts, SliceDecision
from service.monitor.promotion_gate import (
    decide,
    holm,
    least_rows,
    limits,
    mcnemar_p_value,
    rows_needed,
)

ALL = PairedCounts("__all__", 20_000, 18_000, 500, 500)
"""All rows, on which a candidate is as good."""


def outcomes(decision: Decision) -> dict[str, str]:
    return {each.pairs.slice: each.outcome for each in decision.slices}


def of(decision: Decision, name: str) -> SliceDecision:
    return next(each for each in decision.slices if each.pairs.slice == name)


def judge(*pairs: PairedCounts, protected: Sequence[str] = ("a",), minimum_rows: int = 50) -> Decision:
    return decide([ALL, *pairs], protected, margin=0.02, minimum_rows=minimum_rows)


# --- what is decided ---------------------------------------------------------------------------------------


def test_a_candidate_that_is_shown_to_be_as_good_is_promoted() -> None:
    """The reason names every verified slice, and the margin."""
    decision = judge(PairedCounts("a", 2000, 1800, 50, 50))
    assert (decision.outcome, outcomes(decision)) == ("promote", {"__all__": "as_good", "a": "as_good"})
    assert decision.reasons == ("verified within 2 points: all traffic, a; no slice is significantly worse",)


def test_a_better_slice_is_called_better() -> None:
    """The slice and the decision both name it as better."""
    decision = judge(PairedCounts("a", 2000, 1500, 50, 200))
    assert outcomes(decision)["a"] == "better"
    assert of(decision, "a").reason == "better: difference +7.5 points (+6.2 to +8.8), effective n 2,000"
    assert decision.reasons[1] == "better: a"


def test_a_worse_protected_slice_rejects() -> None:
    """The reason has the slice, the difference with its limits, n, and the p-value."""
    decision = judge(PairedCounts("a", 400, 300, 60, 5))
    assert (decision.outcome, outcomes(decision)["a"]) == ("reject", "worse")
    assert decision.reasons == (
        "a is worse: difference -13.8 points (-17.1 to -10.2), effective n 400; 60 rows lost, 5 gained, "
        "adjusted p < 0.0001",
    )


def test_a_worse_slice_rejects_also_where_it_is_not_protected() -> None:
    """Significant harm to any slice rejects."""
    decision = judge(PairedCounts("a", 2000, 1800, 50, 50), PairedCounts("b", 400, 300, 60, 5))
    assert (decision.outcome, outcomes(decision)["b"]) == ("reject", "worse")


def test_a_gain_elsewhere_does_not_make_up_for_a_worse_slice() -> None:
    """The reasons name the worse slice, not the gain."""
    decision = judge(PairedCounts("a", 2000, 1500, 50, 200), PairedCounts("b", 400, 300, 60, 5))
    assert [reason.split(":")[0] for reason in decision.reasons] == ["b is worse"]


def test_too_few_rows_of_a_protected_slice_hold() -> None:
    """The reason has the number of rows, and the minimum."""
    decision = judge(PairedCounts("a", 49, 44, 0, 0))
    assert (decision.outcome, outcomes(decision)["a"]) == ("hold", "not_verified")
    assert decision.reasons == ("a is not verified: 49 distinct held-out rows, at least 50 needed",)


def test_too_few_rows_hold_also_where_all_of_them_are_lost() -> None:
    """Below the minimum a slice is neither good nor bad."""
    assert judge(PairedCounts("a", 40, 0, 40, 0)).outcome == "hold"


def test_a_protected_slice_without_any_row_holds() -> None:
    """A protected slice that was not counted is listed with zero rows."""
    decision = judge(protected=["gone"])
    assert decision.outcome == "hold"
    assert of(decision, "gone").pairs == PairedCounts("gone", 0, 0, 0, 0)
    assert decision.reasons == ("gone is not verified: 0 distinct held-out rows, at least 50 needed",)


def test_rows_enough_to_look_at_may_be_too_few_to_tell() -> None:
    """The reason has the difference, its limits, and the approximate number of distinct rows needed."""
    decision = judge(PairedCounts("a", 400, 300, 8, 5))
    assert (decision.outcome, outcomes(decision)["a"]) == ("hold", "not_verified")
    assert decision.reasons == (
        "a is not verified: difference -0.8 points (-2.6 to +1.1), effective n 400, inconclusive at a margin of "
        "2 points; about 1,600 distinct rows needed",
    )


def test_no_number_of_rows_is_asked_for_where_none_would_do() -> None:
    """More rows do not help if the observed difference exceeds the margin."""
    reason = judge(PairedCounts("a", 60, 50, 3, 1)).reasons[0]
    assert reason.endswith("; the difference exceeds the margin")


def test_agreement_on_few_rows_is_no_evidence() -> None:
    """Full agreement verifies a slice of 300 rows, not one of 100."""
    assert outcomes(judge(PairedCounts("a", 100, 90, 0, 0)))["a"] == "not_verified"
    assert outcomes(judge(PairedCounts("a", 300, 280, 0, 0)))["a"] == "as_good"


def test_other_slices_hold_nothing_up() -> None:
    """Slices that are not protected are listed, but do not hold the candidate."""
    decision = judge(
        PairedCounts("a", 2000, 1800, 50, 50),
        PairedCounts("b", 40, 30, 1, 1),
        PairedCounts("c", 400, 300, 8, 5),
    )
    assert (decision.outcome, outcomes(decision)["b"], outcomes(decision)["c"]) == (
        "promote",
        "not_verified",
        "no_harm",
    )
    assert of(decision, "c").reason == "not significantly worse: difference -0.8 points (-2.6 to +1.1), effective n 400"
    assert decision.reasons[-1] == "not verified, not protected: b (effective n 40)"


def test_a_sure_loss_within_the_margin_is_let_pass() -> None:
    """A significant loss of half a point is within the margin."""
    decision = judge(PairedCounts("a", 50_000, 45_000, 500, 250))
    assert mcnemar_p_value(of(decision, "a").pairs) < 1e-9
    assert (decision.outcome, of(decision, "a").reason) == (
        "promote",
        "as good: difference -0.5 points (-0.6 to -0.4), effective n 50,000, within the margin of 2 points",
    )


def test_the_whole_traffic_is_protected() -> None:
    """A candidate not verified on all rows is held, regardless of gains on slices."""
    rows = [PairedCounts("__all__", 400, 300, 8, 5), PairedCounts("a", 300, 200, 0, 90)]
    decision = decide(rows, [], margin=0.02, minimum_rows=50)
    assert decision.outcome == "hold"
    assert decision.reasons[0].startswith("all traffic is not verified: difference -0.8")
    assert decide([], [], margin=0.02, minimum_rows=50).outcome == "hold"


def test_harm_by_chance_alone_is_corrected_for_the_number_of_slices() -> None:
    """A p-value that is significant alone is not among a hundred other slices."""
    lost = PairedCounts("lost", 400, 300, 9, 1)
    others = [PairedCounts(f"s{k}", 400, 300, 5, 5) for k in range(99)]
    alone = judge(lost, protected=[])
    assert of(alone, "lost").reason.endswith("9 rows lost, 1 gained, adjusted p = 0.011")
    assert outcomes(judge(lost, *others, protected=[]))["lost"] == "no_harm"


def test_many_others_do_not_blunt_the_test_of_a_protected_slice() -> None:
    """The two families are adjusted separately."""
    others = [PairedCounts(f"s{k}", 400, 300, 5, 5) for k in range(99)]
    assert outcomes(judge(PairedCounts("a", 400, 300, 12, 1), *others))["a"] == "worse"


def test_all_rows_come_first() -> None:
    """Then come the given slices in order, then those that were not counted."""
    rows = [PairedCounts("b", 60, 50, 0, 0), PairedCounts("a", 60, 50, 0, 0), ALL]
    decision = decide(rows, ["y", "x"], margin=0.02, minimum_rows=50)
    assert [each.pairs.slice for each in decision.slices] == ["__all__", "b", "a", "x", "y"]


@pytest.mark.parametrize(
    ("pairs", "numbers", "message"),
    [
        ([PairedCounts("a", 10, 8, 2, 1)], {}, r"the counts of 'a' do not add up: \(8, 2, 1\) of 10 rows"),
        ([PairedCounts("a", 10, 8, -1, 1)], {}, "do not add up"),
        ([ALL, ALL], {}, "slice '__all__' occurs twice"),
        ([ALL], {"margin": 2.0}, r"between 0 and 1, got 2\.0"),
        ([ALL], {"confidence": 0.5}, r"between 0\.5 and 1, got 0\.5"),
    ],
)
def test_what_cannot_be_is_refused(pairs: list[PairedCounts], numbers: dict[str, float], message: str) -> None:
    """Inconsistent counts, repeated slices, and numbers out of range are errors."""
    with pytest.raises(ValueError, match=message):
        decide(pairs, [], **{"margin": 0.02, "minimum_rows": 50, **numbers})


# --- the arithmetic ----------------------------------------------------------------------------------------


def limits_by_rows(pairs: PairedCounts, confidence: float) -> tuple[float, float]:
    """The limits from one difference per row, in a list: a slow twin."""
    z = stats.norm.ppf(confidence)

    def interval(gained: int, lost: int, n: int) -> tuple[float, float]:
        rows = [1] * gained + [-1] * lost + [0] * (n - gained - lost)
        rows += [1, -1]  # one of each, as Bonett and Price have it
        mean = sum(rows) / len(rows)
        variance = sum((row - mean) ** 2 for row in rows) / len(rows)
        reach = z * (variance / len(rows)) ** 0.5
        return max(-1.0, mean - reach), min(1.0, mean + reach)

    gained, lost, n = pairs.only_candidate, pairs.only_champion, pairs.n
    return interval(gained, lost + 1, n + 1)[0], interval(gained + 1, lost, n + 1)[1]


def harm_by_counting(pairs: PairedCounts) -> float:
    """The share of all ways in which the rows that disagree could fall, with as many lost or more."""
    lost, m = pairs.only_champion, pairs.only_champion + pairs.only_candidate
    return sum(comb(m, k) for k in range(lost, m + 1)) / 2**m


counts = st.builds(
    lambda both, lost, gained, neither: PairedCounts("a", both + lost + gained + neither, both, lost, gained),
    *[st.integers(0, 60)] * 4,
)


@given(counts, st.sampled_from([0.9, 0.95, 0.99]))
def test_limits_are_those_of_the_rows(pairs: PairedCounts, confidence: float) -> None:
    """The limits equal those of a slow twin."""
    assert limits(pairs, confidence) == pytest.approx(limits_by_rows(pairs, confidence), abs=1e-12)


@given(counts)
def test_harm_is_the_share_of_the_ways_to_fall(pairs: PairedCounts) -> None:
    """The p-value equals that of a slow twin."""
    assert mcnemar_p_value(pairs) == pytest.approx(harm_by_counting(pairs), abs=1e-12)


@given(counts)
def test_swapping_the_two_flips_the_signs(pairs: PairedCounts) -> None:
    """Swapping champion and candidate mirrors the limits."""
    swapped = replace(pairs, only_champion=pairs.only_candidate, only_candidate=pairs.only_champion)
    lower, upper = limits(pairs)
    assert limits(swapped) == pytest.approx((-upper, -lower), abs=1e-12)


@given(st.lists(counts, min_size=1, max_size=6), st.sets(st.integers(0, 5)), st.randoms())
def test_the_order_of_the_slices_is_of_no_account(
    rows: list[PairedCounts], protected: set[int], chance: object
) -> None:
    """Decisions and reasons do not depend on the order of the slices."""
    named = [replace(each, slice=f"s{k}") for k, each in enumerate(rows)]
    names = [f"s{k}" for k in protected]
    shuffled = list(named)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        decide([ALL, *each], names, margin=0.05, minimum_rows=20, confidence=0.9) for each in (named, shuffled)
    )
    assert one.outcome == other.outcome
    assert set(one.slices) == set(other.slices)
    assert sorted(",".join(one.reasons)) == sorted(",".join(other.reasons))


@given(st.lists(counts, min_size=1, max_size=5), st.integers(0, 4))
def test_one_more_lost_row_never_helps(rows: list[PairedCounts], at: int) -> None:
    """One more lost row never improves a decision."""
    order = {"reject": 0, "hold": 1, "promote": 2}
    named = [replace(each, slice=f"s{k}") for k, each in enumerate(rows)]
    able = [k for k, each in enumerate(named) if each.both > 0]
    assume(able)
    k = able[at % len(able)]
    worse = list(named)
    worse[k] = replace(worse[k], both=worse[k].both - 1, only_champion=worse[k].only_champion + 1)
    before, after = (
        order[decide([ALL, *each], ["s0", "s1"], margin=0.05, minimum_rows=20).outcome] for each in (named, worse)
    )
    assert after <= before


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_the_test_errs_as_seldom_as_it_says(margin: float) -> None:
    """Enumerated: a loss of exactly the margin passes with at most 5.5% probability, for any disagreement."""
    worst = max(max(passing(n, margin, [1, 1.25, 2, 5])) for n in (50, 120, 200, 330, 700, 1710))
    assert 0.04 <= worst <= 0.055


def passing(n: int, margin: float, times: Sequence[float]) -> list[float]:
    """Return how probable it is that a candidate passes that loses just the margin, by disagreement."""
    most = min(n, int(10 * n * margin + 40))
    disagreeing = np.arange(most + 1)
    pass_with = np.array([most_lost(n, m, margin) for m in disagreeing.tolist()])
    return [
        float(
            stats.binom.pmf(disagreeing, n, each * margin) @ stats.binom.cdf(pass_with, disagreeing, (1 + 1 / each) / 2)
        )
        for each in times
    ]


def most_lost(n: int, m: int, margin: float) -> int:
    """Return how many of the m rows that disagree may be lost and the slice still pass; -1 for none."""
    return (
        bisect_left(
            range(m + 1),
            True,
            key=lambda lost: limits(PairedCounts("a", n, n - m, lost, m - lost))[0] <= -margin,
        )
        - 1
    )


@given(st.lists(st.floats(0, 1), max_size=8))
def test_corrected_p_values_reject_what_holms_procedure_rejects(p_values: list[float]) -> None:
    """The adjusted p-values reject the same hypotheses as Holm's step-down procedure."""
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] * (len(p_values) - step) >= 0.05:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p < 0.05} == rejected


def test_the_rows_asked_for_show_it_four_times_in_five() -> None:
    """Simulated with the number of rows needed, 80% of equal candidates are verified."""
    needed = rows_needed(PairedCounts("a", 600, 570, 15, 15), 0.02)
    assert needed == 850
    draws = np.random.default_rng(5).multinomial(needed, [0.025, 0.025, 0.95], size=2000).tolist()
    share = np.mean([limits(PairedCounts("a", needed, both, x, y))[0] > -0.02 for x, y, both in draws])
    assert 0.75 <= share <= 0.85


# --- the figures that the gate has to reach ----------------------------------------------------------------

MEMBERS, OTHERS, RUNS = 1710, 83_790, 100
"""Labelled held-out members of a protected slice of 2 % of the traffic."""


def replays(members: int, lost: float, gained: float, outside_gain: float) -> list[Decision]:
    """Decisions on fresh draws: shares of the slice's rows lost and gained, and what the other rows gain."""
    chance = np.random.default_rng(20_260_101)
    half = outside_gain / 2
    decisions = []
    for _ in range(RUNS):
        inside = drawn(chance, members, lost, gained)
        outside = drawn(chance, OTHERS, 0.025 - half, 0.025 + half)
        whole = [a + b for a, b in zip(inside, outside, strict=True)]
        rows = [
            PairedCounts("__all__", members + OTHERS, *whole),
            PairedCounts("protected", members, *inside),
        ]
        decisions.append(decide(rows, ["protected"], margin=0.02, minimum_rows=50))
    return decisions


def drawn(chance: np.random.Generator, n: int, lost: float, gained: float) -> list[int]:
    """Return how often both, only the champion, and only the candidate were right; neither is the rest."""
    return chance.multinomial(n, [0.85, lost, gained, 0.15 - lost - gained]).tolist()[:3]


@pytest.mark.parametrize(("lost", "gained"), [(0.05, 0.0), (0.075, 0.025)])
def test_a_planted_regression_is_not_promoted(lost: float, gained: float) -> None:
    """A loss of 5 points on the slice with a gain overall is rejected by name in at least 95 of 100."""
    decisions = replays(MEMBERS, lost, gained, 0.006)
    overall = np.mean([each.slices[0].difference for each in decisions])
    assert overall == pytest.approx(0.005, abs=0.001)
    rejected = [each for each in decisions if each.outcome == "reject"]
    assert len(rejected) >= 95
    assert all(each.reasons[0].startswith("protected is worse: difference -") for each in rejected)


def test_an_identical_challenger_is_promoted() -> None:
    """With symmetric disagreement on 5% of the rows, at least 90 of 100 are promoted."""
    decisions = replays(MEMBERS, 0.025, 0.025, 0.0)
    assert sum(each.outcome == "promote" for each in decisions) >= 90


@pytest.mark.parametrize(("lost", "gained"), [(0.05, 0.0), (0.075, 0.025), (0.025, 0.025), (0.0, 0.0)])
def test_fifty_rows_verify_nothing(lost: float, gained: float) -> None:
    """50 rows neither verify an equal candidate nor reject a regression: at least 95 of 100 are held."""
    decisions = replays(50, lost, gained, 0.0)
    held = [each for each in decisions if each.outcome == "hold" and outcomes(each)["protected"] == "not_verified"]
    assert len(held) >= 95
    assert all(each.outcome != "promote" for each in decisions)


def test_few_contents_verify_nothing_however_often_they_repeat() -> None:
    """Rows of one content are one vote, and the candidate is held."""
    decision = decide([PairedCounts("__all__", 3, 3, 0, 0)], set(), margin=0.02, minimum_rows=50)
    assert decision.outcome == "hold"
    assert decision.reasons == ("all traffic is not verified: 3 distinct held-out rows, at least 50 needed",)


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1])
def test_the_least_number_of_rows_is_the_first_that_is_verified(margin: float) -> None:
    """A candidate that never disagrees is promoted from this number of rows on, and held below it."""
    least = least_rows(margin)
    for n, outcome in ((least - 1, "hold"), (least, "promote"), (2 * least, "promote")):
        pairs = [PairedCounts("__all__", n, n // 2, 0, 0)]
        assert decide(pairs, (), margin=margin, minimum_rows=2).outcome == outcome
