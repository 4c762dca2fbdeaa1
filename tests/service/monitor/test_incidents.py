"""Alarms grouped into incidents, with the cause first."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from bench_incidents import run
from incident_worlds import World

from service.monitor.incidents import RowSample, find_incidents

ROWS = 20_000
Flags = np.ndarray


def flags(rng: np.random.Generator, share: float, rows: int = ROWS) -> Flags:
    return rng.random(rows) < share


def coverage(slices: Mapping[str, Flags]) -> RowSample:
    """Return the rows of slices whose coverage is compared."""
    member = np.stack(list(slices.values()), axis=1)
    return RowSample(member, np.ones_like(member), member)


def accuracy(slices: Mapping[str, Flags], wrong: Flags) -> RowSample:
    """Return the labelled rows of slices whose accuracy is compared."""
    member = np.stack(list(slices.values()), axis=1)
    return RowSample(member, member, member & wrong[:, None])


def found(
    names: Sequence[str], before: RowSample, since: RowSample, falling: Sequence[str] = (), wrong: bool = False
) -> list[dict[str, str]]:
    """Return the incidents as how each slice moved, in order."""
    rising = [name not in falling for name in names]
    return [
        {
            names[place.alarm]: ("by itself" if place.cause is None else f"with {names[place.cause]}")
            + ("" if place.is_shown else "?")
            for place in incident
        }
        for incident in find_incidents(before, since, rising, np.full(len(names), wrong))
    ]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def nested(rng: np.random.Generator, inner: float, outer: float) -> dict[str, Flags]:
    """Return an inner slice, one with other rows as well, and one that overlaps both at random."""
    small = flags(rng, inner)
    large = small | flags(rng, outer)
    return {"outer": large, "mixed": np.where(small, flags(rng, 0.7), flags(rng, 0.05)), "inner": small}


def test_the_slice_that_changed_explains_those_that_contain_it(rng: np.random.Generator) -> None:
    """It comes first, and the rates of the others did not move outside it."""
    before, since = nested(rng, 0.02, 0.1), nested(rng, 0.08, 0.1)
    assert found([*before], coverage(before), coverage(since)) == [
        {"inner": "by itself", "mixed": "with inner", "outer": "with inner"}
    ]


@pytest.mark.parametrize(("was", "now"), [(0.05, 0.15), (0.2, 0.08)])
def test_a_slice_that_changed_as_a_whole_explains_its_parts(rng: np.random.Generator, was: float, now: float) -> None:
    """The larger one comes first, for a rise and for a fall, and its parts moved with it."""

    def world(share: float) -> dict[str, Flags]:
        whole = flags(rng, share)
        return {"part": whole & flags(rng, 0.3), "whole": whole, "other part": whole & flags(rng, 0.5)}

    before, since = world(was), world(now)
    falling = [] if now > was else [*before]
    assert found([*before], coverage(before), coverage(since), falling) == [
        {"whole": "by itself", "other part": "with whole", "part": "with whole"}
    ]


def test_an_unrelated_change_is_an_incident_of_its_own(rng: np.random.Generator) -> None:
    """Two slices that overlap at random moved by themselves, and one that contains both belongs to one of them."""

    def world(one: float, other: float) -> dict[str, Flags]:
        first, second = flags(rng, one), flags(rng, other)
        return {"both": first | second | flags(rng, 0.2), "first": first, "second": second}

    before, since = world(0.1, 0.05), world(0.3, 0.1)
    assert found([*before], coverage(before), coverage(since)) == [
        {"first": "by itself", "both": "with first"},
        {"second": "by itself"},
    ]


def keywords(rng: np.random.Generator, shares: Sequence[float]) -> dict[str, Flags]:
    """Return disjoint slices."""
    kind = rng.choice(len(shares) + 1, ROWS, p=[*shares, 1 - sum(shares)])
    return {f"word {k}": kind == k for k in range(len(shares))}


def test_a_union_explains_its_disjoint_parts(rng: np.random.Generator) -> None:
    """A cause that raises several keywords is the slice of all of them, if there is one."""

    def world(shares: Sequence[float]) -> dict[str, Flags]:
        words = keywords(rng, shares)
        return words | {"any word": np.any(list(words.values()), axis=0)}

    before, since = world([0.01, 0.02, 0.03]), world([0.03, 0.06, 0.09])
    assert found([*before], coverage(before), coverage(since)) == [
        {"any word": "by itself", "word 2": "with any word", "word 1": "with any word", "word 0": "with any word"}
    ]


def test_parts_of_a_wider_slice_are_one_incident(rng: np.random.Generator) -> None:
    """Each of two disjoint slices moved by itself, and the rows of both are in a third that moved more than either."""

    def world(shares: Sequence[float]) -> dict[str, Flags]:
        words = keywords(rng, shares)
        return {"word 0": words["word 0"], "word 1": words["word 1"], "any": np.any(list(words.values()), axis=0)}

    before, since = world([0.01, 0.01, 0.06]), world([0.05, 0.02, 0.12])
    (incident,) = found([*before], coverage(before), coverage(since))
    assert set(incident) == {"word 0", "word 1", "any"}


def test_disjoint_slices_are_separate(rng: np.random.Generator) -> None:
    """Without a common slice, alarms that share no rows are not one incident."""
    before, since = keywords(rng, [0.02, 0.03]), keywords(rng, [0.05, 0.09])
    assert found([*before], coverage(before), coverage(since)) == [{"word 1": "by itself"}, {"word 0": "by itself"}]


def test_the_others_make_room_for_a_large_rise(rng: np.random.Generator) -> None:
    """Slices that fall because another one takes their share moved with it."""
    before, since = keywords(rng, [0.2, 0.2, 0.1]), keywords(rng, [0.7, 0.075, 0.0375])
    names = [*before]
    assert found(names, coverage(before), coverage(since), falling=names[1:]) == [
        {"word 0": "by itself", "word 1": "with word 0", "word 2": "with word 0"}
    ]


def test_wrong_predictions_in_a_slice_explain_those_around_it(rng: np.random.Generator) -> None:
    """The accuracy on all rows fell because that in one slice did."""

    def world(inner: float) -> RowSample:
        slices = nested(rng, 0.1, 0.2) | {"all": np.ones(ROWS, bool)}
        return accuracy(slices, np.where(slices["inner"], flags(rng, inner), flags(rng, 0.05)))

    assert found(["outer", "mixed", "inner", "all"], world(0.05), world(0.5), wrong=True) == [
        {"inner": "by itself", "outer": "with inner", "mixed": "with inner", "all": "with inner"}
    ]


def test_a_fall_of_the_accuracy_everywhere_is_one_incident(rng: np.random.Generator) -> None:
    """Every slice moved with all rows."""

    def world(rate: float) -> RowSample:
        return accuracy(nested(rng, 0.1, 0.2) | {"all": np.ones(ROWS, bool)}, flags(rng, rate))

    (incident,) = found(["outer", "mixed", "inner", "all"], world(0.05), world(0.15), wrong=True)
    assert incident == {"all": "by itself", "outer": "with all", "inner": "with all", "mixed": "with all"}


def test_few_rows_are_no_proof(rng: np.random.Generator) -> None:
    """The cause is named, but neither is shown by 60 rows."""
    before, since = ({n: f[:60] for n, f in nested(rng, share, 0.3).items()} for share in (0.1, 0.3))
    (incident,) = found([*before], coverage(before), coverage(since))
    assert any(moved.endswith("?") for moved in incident.values())


def test_without_rows_before_common_rows_decide(rng: np.random.Generator) -> None:
    """Nothing is shown, and slices in each other are one incident."""
    since = nested(rng, 0.1, 0.1) | {"apart": flags(rng, 0.2)}
    none = {name: rows[:0] for name, rows in since.items()}
    incidents = found([*since], coverage(none), coverage(since))
    assert [set(incident) for incident in incidents if "apart" in incident] == [{"apart"}]
    assert any({"inner", "outer"} <= set(incident) for incident in incidents)
    assert all(moved.endswith("?") for incident in incidents for moved in incident.values())


def test_the_order_of_the_alarms_changes_nothing(rng: np.random.Generator) -> None:
    """Nor does that of the rows."""
    before, since = nested(rng, 0.02, 0.1), nested(rng, 0.05, 0.1)
    names, rows = [*reversed(before)], rng.permutation(ROWS)
    turned = [{name: slices[name][rows] for name in names} for slices in (before, since)]
    assert found(names, *map(coverage, turned)) == found([*before], coverage(before), coverage(since))


def test_a_planted_cause_comes_among_the_first_three() -> None:
    """In 6 of 7 runs among 1,000 overlapping slices; the benchmark has 100, each with slices of its own."""
    world = World(1_000, np.random.default_rng(0))
    outcomes = [run(world, np.random.default_rng(seed), most_chunks=1) for seed in range(7)]
    assert sum(outcome.place <= 3 for outcome in outcomes) >= 6
    assert sum(outcome.incidents == 1 for outcome in outcomes) >= 5
