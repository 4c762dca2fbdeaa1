"""The watch: verdicts, where they say the change is, and going on after a restart."""

import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.decisions import DriftDetected, ToleranceBand
from service.monitor.drift_detector import DriftWatch, Observation, RateKey, log_threshold
from service.monitor.tolerance_band import accuracy_band, coverage_band
from sfs.intervals import Rate

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
SECONDS = timedelta(seconds=10)
THRESHOLD = log_threshold(200, 1.0)
SPAM, SHORT, ALL = (
    RateKey("spam", "f1", "coverage"),
    RateKey("short", "f2", "coverage"),
    RateKey("__all__", None, "accuracy"),
)
ZONES = {
    SPAM: coverage_band(Rate(1_000, 50_000), 0.1, 200),
    SHORT: coverage_band(Rate(10_000, 50_000), 0.1, 200),
    ALL: accuracy_band(Rate(4_500, 5_000), 0.01, 200),
}


def at(block: int) -> datetime:
    return TEN + block * SECONDS


def blocks(
    rates: dict[RateKey, float], n: int, number: int, first: int = 0, seed: int = 0
) -> list[Observation]:
    """Return blocks of n rows at these rates."""
    rng = np.random.default_rng([seed, first])
    return [
        Observation(at(b), at(b + 1), {key: Rate(int(rng.binomial(n, p)), n) for key, p in rates.items()})
        for b in range(first, first + number)
    ]


CALM = {SPAM: 0.02, SHORT: 0.2, ALL: 0.9}
CHANGED = {SPAM: 0.05, SHORT: 0.1, ALL: 0.8}
STORY = blocks(CALM, 300, 30) + blocks(CHANGED, 300, 30, first=30)


def told(watch: DriftWatch, story: list[Observation]) -> list[DriftDetected]:
    return [verdict for block in story for verdict in watch.advance(block)]


def first_of(verdicts: list[DriftDetected]) -> dict[str, DriftDetected]:
    return {verdict.drift.slice: verdict for verdict in reversed(verdicts)}


def test_the_threshold_shares_the_false_alarms_out() -> None:
    """Half of a month's false alarms over all slices and blocks of 10 s."""
    assert log_threshold(1_000, 1.0) == pytest.approx(np.log(1_000 * 30 * 8_640 / 0.5))


@pytest.mark.parametrize("alarms", [0.0, -1.0, 1e12, float("nan")])
def test_an_impossible_number_of_false_alarms_is_refused(alarms: float) -> None:
    """The message says between which numbers it lies."""
    with pytest.raises(ValueError, match=r"lie between 0 and 518400, .* got"):
        log_threshold(1, alarms)


def test_a_threshold_that_is_always_reached_is_refused() -> None:
    """A detector alarms at 1 or less whatever it sees."""
    with pytest.raises(ValueError, match="positive, got 0"):
        DriftWatch({}, 0.0)


def test_changes_alarm_and_calm_does_not() -> None:
    """Each changed rate alarms after its change, in its direction, and says on what evidence."""
    verdicts = told(DriftWatch(ZONES, THRESHOLD), STORY)
    found = first_of(verdicts)
    assert all(verdict.at > at(30) for verdict in verdicts)
    assert {name: verdict.drift.direction for name, verdict in found.items()} == {
        "spam": "up",
        "short": "down",
        "__all__": "down",
    }
    for verdict in verdicts:
        drift = verdict.drift
        assert (drift.evidence >= drift.threshold, drift.threshold) == (True, THRESHOLD)
        assert drift.zone == ZONES[RateKey(drift.slice, drift.fingerprint, drift.kind)]


def test_a_better_accuracy_is_no_drift() -> None:
    """Accuracy is watched on one side."""
    watch = DriftWatch(ZONES, THRESHOLD)
    assert told(watch, blocks({ALL: 0.999}, 500, 50)) == []
    assert watch.drifts()[2].evidence == 0


def test_verdicts_of_one_block_are_in_the_order_of_the_zones() -> None:
    """Whatever the order of the counts."""
    block = Observation(at(0), at(1), {ALL: Rate(0, 900), SHORT: Rate(0, 900), SPAM: Rate(900, 900)})
    verdicts = DriftWatch(ZONES, THRESHOLD).advance(block)
    assert [verdict.drift.slice for verdict in verdicts] == ["spam", "short", "__all__"]
    assert {verdict.at for verdict in verdicts} == {at(1)}


@pytest.mark.parametrize("n", [20, 1_000])
def test_time_and_size_of_a_change_are_close_to_the_truth(n: int) -> None:
    """Over 60 rates: since when, and how many since then, within what the rows let be told."""
    keys = [RateKey(f"s{k}", "f", "coverage") for k in range(60)]
    watch = DriftWatch(dict.fromkeys(keys, coverage_band(Rate(10_000, 200_000), 0.1, 60)), THRESHOLD)
    calm = blocks(dict.fromkeys(keys, 0.05), n, 40)
    moved = blocks(dict.fromkeys(keys, 0.12), n, 4_000 // n + 40, first=40)
    found = first_of(told(watch, calm + moved))
    assert len(found) == 60
    off = [(verdict.drift.since - at(40)) / SECONDS * n for verdict in found.values() if verdict.drift.since]
    assert len(off) == 60
    assert abs(np.median(off)) <= 60  # rows
    assert np.mean(np.abs(off) <= max(300, 2 * n)) >= 0.9
    drifts = [verdict.drift for verdict in found.values()]
    assert all(d.lower <= d.observed.count / d.observed.n <= d.upper for d in drifts)
    assert np.mean([d.lower <= 0.12 <= d.upper for d in drifts]) >= 0.9
    whole = sum((d.observed for d in drifts), Rate(0, 0))
    assert whole.count / whole.n == pytest.approx(0.12, rel=0.1)


def test_what_was_observed_is_counted_since_the_change() -> None:
    """The counts are those of the blocks from the change on, no more and no less."""
    verdict = first_of(told(DriftWatch(ZONES, THRESHOLD), STORY))["spam"]
    seen = [block.counts[SPAM] for block in STORY if verdict.drift.since <= block.start < verdict.at]  # type: ignore[operator]
    assert verdict.drift.observed == sum(seen, Rate(0, 0))


def test_a_rate_begins_anew_after_its_verdict() -> None:
    """Nothing of the evidence is left, the others keep theirs."""
    watch = DriftWatch(ZONES, THRESHOLD)
    told(watch, blocks(CALM, 300, 5))
    before = watch.drifts()[1]
    assert watch.advance(Observation(at(5), at(6), {SPAM: Rate(200, 300)}))
    spam, short, _ = watch.drifts()
    assert (spam.evidence, spam.since, spam.direction, spam.observed) == (0, None, None, Rate(0, 0))
    assert (spam.lower, spam.upper) == (0, 1)
    assert short == before
    assert watch.advance(Observation(at(6), at(7), {SPAM: Rate(200, 300)}))


def test_where_nothing_points_to_a_change_all_rows_are_observed() -> None:
    """A rate in the middle of its zone has no change time, and all that was counted."""
    watch = DriftWatch(ZONES, THRESHOLD)
    assert told(watch, [Observation(at(b), at(b + 1), {SHORT: Rate(200, 1_000)}) for b in range(50)]) == []
    drift = watch.drifts()[1]
    assert (drift.since, drift.direction, drift.observed) == (None, None, Rate(10_000, 50_000))
    assert drift.share == 0


def test_a_hint_is_no_change() -> None:
    """Just beyond the zone one alternative is likelier than no change, but the mixture is not."""
    watch = DriftWatch({SHORT: ToleranceBand(Rate(4_000, 20_000), 0.18, 0.22, 0.1)}, THRESHOLD)
    watch.advance(Observation(at(0), at(1), {SHORT: Rate(200, 1_000)}))
    watch.advance(Observation(at(1), at(2), {SHORT: Rate(515, 3_000)}))
    (drift,) = watch.drifts()
    assert (drift.evidence, drift.since, drift.direction, drift.observed) == (0, None, None, Rate(715, 4_000))
    watch.advance(Observation(at(2), at(3), {SHORT: Rate(480, 3_000)}))
    (drift,) = watch.drifts()
    assert (drift.since, drift.direction, drift.observed) == (at(1), "down", Rate(995, 6_000))


def test_what_was_not_counted_stays_where_it_is() -> None:
    """Empty blocks, rates that a block does not name, and rates of no rows change nothing."""
    watch = DriftWatch(ZONES, THRESHOLD)
    told(watch, STORY[:33])
    before = watch.to_bytes(), watch.drifts()
    assert watch.advance(Observation(at(40), at(41), {})) == []
    assert (
        watch.advance(
            Observation(at(41), at(42), {SPAM: Rate(0, 0), RateKey("other", "f", "coverage"): Rate(9, 9)})
        )
        == []
    )
    assert watch.drifts() == before[1]
    assert told(watch, STORY[33:]) == told(DriftWatch.from_bytes(before[0], ZONES, THRESHOLD), STORY[33:])


def test_a_watch_over_nothing_works() -> None:
    """No reference, no rate, no verdict."""
    watch = DriftWatch({}, THRESHOLD)
    assert told(watch, STORY) == []
    assert watch.drifts() == ()
    assert DriftWatch.from_bytes(watch.to_bytes(), {}, THRESHOLD).drifts() == ()


def test_a_restart_after_any_block_changes_nothing() -> None:
    """Verdicts and state are the same to the last bit, wherever the watch was stopped."""
    whole = DriftWatch(ZONES, THRESHOLD)
    verdicts = told(whole, STORY)
    again, found = DriftWatch(ZONES, THRESHOLD), []
    for block in STORY:
        again = DriftWatch.from_bytes(again.to_bytes(), ZONES, THRESHOLD)
        found += again.advance(block)
    assert found == verdicts
    assert again.to_bytes() == whole.to_bytes()


def test_a_restart_knows_rates_by_their_key() -> None:
    """The order of the zones may be another one."""
    watch = DriftWatch(ZONES, THRESHOLD)
    told(watch, STORY[:32])
    turned = DriftWatch.from_bytes(watch.to_bytes(), dict(reversed(ZONES.items())), THRESHOLD)
    assert turned.drifts() == watch.drifts()[::-1]


@pytest.mark.parametrize("restarted", [False, True])
def test_only_rates_with_the_same_zone_go_on(restarted: bool) -> None:
    """Another reference, another function or a new slice begins anew; the rest keeps its evidence."""
    watch = DriftWatch(ZONES, THRESHOLD)
    told(watch, STORY[:32])
    edited = RateKey("short", "f3", "coverage")
    zones = {edited: ZONES[SHORT], SPAM: coverage_band(Rate(1_001, 50_000), 0.1, 200), ALL: ZONES[ALL]}
    kept = watch.drifts()[2]
    if restarted:
        watch = DriftWatch.from_bytes(watch.to_bytes(), zones, THRESHOLD)
    else:
        watch.rezone(zones)
    short, spam, everything = watch.drifts()
    assert everything == kept
    assert kept.evidence > 0
    assert [(each.evidence, each.observed.n) for each in (short, spam)] == [(0, 0)] * 2
    assert short.fingerprint == "f3"


def test_damaged_state_is_refused() -> None:
    """Whether cut, changed, foreign, or of other contents."""
    state = DriftWatch(ZONES, THRESHOLD).to_bytes()
    changed = bytearray(state)
    changed[len(state) // 2] ^= 1
    head, _, body = zlib.decompress(state).partition(b"\n")
    broken = [state[:-5], bytes(changed), b"", b"state", zlib.compress(head + b"\n" + body[:-8])]
    broken += [
        zlib.compress(state + b"\n"),
        zlib.compress(head + b"\n" + body + b"12345678"),
        zlib.compress(b"[]\n"),
    ]
    for each in broken:
        with pytest.raises(ValueError, match="damaged: begin a new watch"):
            DriftWatch.from_bytes(each, ZONES, THRESHOLD)


def test_state_of_another_release_is_refused() -> None:
    """Its evidence is against other alternatives."""
    state = zlib.decompress(DriftWatch(ZONES, THRESHOLD).to_bytes()).replace(b'"format": 1', b'"format": 2')
    with pytest.raises(ValueError, match="has format 2, not 1: begin a new watch"):
        DriftWatch.from_bytes(zlib.compress(state), ZONES, THRESHOLD)


def test_a_zone_can_be_wide_open() -> None:
    """A reference of no rows is a zone that nothing leaves."""
    watch = DriftWatch({SPAM: ToleranceBand(Rate(0, 0), 0.0, 1.0, 0.1)}, THRESHOLD)
    assert told(watch, blocks({SPAM: 0.5}, 1_000, 5) + blocks({SPAM: 1.0}, 1_000, 5, first=5)) == []
