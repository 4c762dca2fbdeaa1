"""The drift detector: detections, their details, and restarts."""

import json
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decisions import DriftDetected, RateKey, ToleranceBand
from service.monitor.alternatives import ALTERNATIVES
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.tolerance_band import coverage_band
from sfs.intervals import Rate

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
SECONDS = timedelta(seconds=10)
THRESHOLD = log_threshold(200, 1.0)
SPAM, SHORT, ALL = (
    RateKey("spam", "f1", "coverage"),
    RateKey("short", "f2", "coverage"),
    RateKey("__all__", None, "confidence"),
)
ZONES = {
    SPAM: coverage_band(Rate(1_000, 50_000), 0.1, 200),
    SHORT: coverage_band(Rate(10_000, 50_000), 0.1, 200),
    ALL: coverage_band(Rate(4_500, 5_000), 0.01, 200),
}


def at(block: int) -> datetime:
    return TEN + block * SECONDS


def blocks(rates: dict[RateKey, float], n: int, number: int, first: int = 0, seed: int = 0) -> list[Observation]:
    """Return blocks of n rows at these rates."""
    rng = np.random.default_rng([seed, first])
    return [
        Observation.of(at(b), at(b + 1), {key: Rate(int(rng.binomial(n, p)), n) for key, p in rates.items()})
        for b in range(first, first + number)
    ]


CALM = {SPAM: 0.02, SHORT: 0.2, ALL: 0.9}
CHANGED = {SPAM: 0.05, SHORT: 0.1, ALL: 0.8}
STORY = blocks(CALM, 300, 30) + blocks(CHANGED, 300, 30, first=30)


def detections_of(detector: DriftDetector, story: list[Observation]) -> list[DriftDetected]:
    return [detection for block in story for detection in detector.advance(block)]


def first_of(detections: list[DriftDetected]) -> dict[str, DriftDetected]:
    return {detection.drift.slice: detection for detection in reversed(detections)}


def test_the_threshold_shares_the_false_alarms_out() -> None:
    """Half of a month's false alarms over all slices and blocks of 10 s."""
    assert log_threshold(1_000, 1.0) == pytest.approx(np.log(1_000 * 30 * 8_640 / 0.5))


@pytest.mark.parametrize("alarms", [0.0, -1.0, 1e12, float("nan")])
def test_an_impossible_number_of_false_alarms_is_refused(alarms: float) -> None:
    """The error names the valid range."""
    with pytest.raises(ValueError, match=r"above 0 and below 518400 .* got"):
        log_threshold(1, alarms)


def test_a_threshold_that_is_always_reached_is_refused() -> None:
    """A threshold of 1 or less would always alarm."""
    with pytest.raises(ValueError, match="positive, got 0"):
        DriftDetector({}, 0.0)


def test_changes_alarm_and_calm_does_not() -> None:
    """Every changed rate alarms after its change, in its direction, with its evidence."""
    detections = detections_of(DriftDetector(ZONES, THRESHOLD), STORY)
    found = first_of(detections)
    assert all(detection.at > at(30) for detection in detections)
    assert {name: detection.drift.direction for name, detection in found.items()} == {
        "spam": "up",
        "short": "down",
        "__all__": "down",
    }
    for detection in detections:
        drift = detection.drift
        assert (drift.evidence >= drift.threshold, drift.threshold) == (True, THRESHOLD)
        assert drift.zone == ZONES[RateKey(drift.slice, drift.fingerprint, drift.kind)]


def test_verdicts_of_one_block_are_in_the_order_of_the_zones() -> None:
    """Detections have the order of the bands, not of the counts."""
    block = Observation.of(at(0), at(1), {ALL: Rate(0, 900), SHORT: Rate(0, 900), SPAM: Rate(900, 900)})
    detections = DriftDetector(ZONES, THRESHOLD).advance(block)
    assert [detection.drift.slice for detection in detections] == ["spam", "short", "__all__"]
    assert {detection.at for detection in detections} == {at(1)}


@pytest.mark.parametrize("n", [20, 1_000])
def test_time_and_size_of_a_change_are_close_to_the_truth(n: int) -> None:
    """Over 60 rates, start and size of the change are as accurate as the rows allow."""
    keys = [RateKey(f"s{k}", "f", "coverage") for k in range(60)]
    detector = DriftDetector(dict.fromkeys(keys, coverage_band(Rate(10_000, 200_000), 0.1, 60)), THRESHOLD)
    calm = blocks(dict.fromkeys(keys, 0.05), n, 40)
    moved = blocks(dict.fromkeys(keys, 0.12), n, 4_000 // n + 40, first=40)
    found = first_of(detections_of(detector, calm + moved))
    assert len(found) == 60
    off = [(detection.drift.since - at(40)) / SECONDS * n for detection in found.values() if detection.drift.since]
    assert len(off) == 60
    assert abs(np.median(off)) <= 60  # rows
    assert np.mean(np.abs(off) <= max(300, 2 * n)) >= 0.9
    drifts = [detection.drift for detection in found.values()]
    assert all(d.lower <= d.observed.count / d.observed.n <= d.upper for d in drifts)
    assert np.mean([d.lower <= 0.12 <= d.upper for d in drifts]) >= 0.9
    whole = sum((d.observed for d in drifts), Rate(0, 0))
    assert whole.count / whole.n == pytest.approx(0.12, rel=0.1)


def test_what_was_observed_is_counted_since_the_change() -> None:
    """Observed counts are those of the blocks since the change."""
    detection = first_of(detections_of(DriftDetector(ZONES, THRESHOLD), STORY))["spam"]
    seen = [block.rates([SPAM])[SPAM] for block in STORY if detection.drift.since <= block.start < detection.at]  # type: ignore[operator]
    assert detection.drift.observed == sum(seen, Rate(0, 0))


def test_a_rate_begins_anew_after_its_detection() -> None:
    """A detection resets its own evidence only."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, blocks(CALM, 300, 5))
    before = detector.drifts()[1]
    assert detector.advance(Observation.of(at(5), at(6), {SPAM: Rate(200, 300)}))
    spam, short, _ = detector.drifts()
    assert (spam.evidence, spam.since, spam.direction, spam.observed) == (0, None, None, Rate(0, 0))
    assert (spam.lower, spam.upper) == (0, 1)
    assert short == before
    assert detector.advance(Observation.of(at(6), at(7), {SPAM: Rate(200, 300)}))


def test_where_nothing_points_to_a_change_all_rows_are_observed() -> None:
    """Without evidence there is no start of a change, and all rows are observed."""
    detector = DriftDetector(ZONES, THRESHOLD)
    assert (
        detections_of(detector, [Observation.of(at(b), at(b + 1), {SHORT: Rate(200, 1_000)}) for b in range(50)]) == []
    )
    drift = detector.drifts()[1]
    assert (drift.since, drift.direction, drift.observed) == (None, None, Rate(10_000, 50_000))
    assert drift.evidence_ratio == 0


def test_a_hint_is_no_change() -> None:
    """Just beyond the band one alternative may be likely while the mixture is not."""
    detector = DriftDetector({SHORT: ToleranceBand(Rate(4_000, 20_000), 0.18, 0.22, 0.1)}, THRESHOLD)
    detector.advance(Observation.of(at(0), at(1), {SHORT: Rate(200, 1_000)}))
    detector.advance(Observation.of(at(1), at(2), {SHORT: Rate(515, 3_000)}))
    (drift,) = detector.drifts()
    assert (drift.evidence, drift.since, drift.direction, drift.observed) == (0, None, None, Rate(715, 4_000))
    detector.advance(Observation.of(at(2), at(3), {SHORT: Rate(480, 3_000)}))
    (drift,) = detector.drifts()
    assert (drift.since, drift.direction, drift.observed) == (at(1), "down", Rate(995, 6_000))


def test_blocks_may_have_other_rates_in_another_order() -> None:
    """Each count reaches its rate, whichever rates the block before had, and after the bands are replaced."""
    block = {SPAM: Rate(2, 90), SHORT: Rate(18, 90), ALL: Rate(80, 90)}
    orders = [[SPAM, SHORT, ALL], [ALL, SPAM, SHORT], [ALL, SPAM, SHORT], [SHORT], [SPAM, SHORT, ALL]]
    detector = DriftDetector(ZONES, THRESHOLD)
    for at_block, keys in enumerate(orders):
        detector.advance(Observation.of(at(at_block), at(at_block + 1), {key: block[key] for key in keys}))
        if at_block == 2:
            detector.rezone(dict(reversed(ZONES.items())))
    assert {drift.slice: drift.observed for drift in detector.drifts()} == {
        "spam": Rate(8, 360),
        "short": Rate(90, 450),
        "__all__": Rate(320, 360),
    }


def test_what_was_not_counted_stays_where_it_is() -> None:
    """Empty blocks, and rates that are missing or have no rows, change nothing."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, STORY[:33])
    before = detector.to_bytes(), detector.drifts()
    assert detector.advance(Observation.of(at(40), at(41), {})) == []
    assert (
        detector.advance(
            Observation.of(at(41), at(42), {SPAM: Rate(0, 0), RateKey("other", "f", "coverage"): Rate(9, 9)})
        )
        == []
    )
    assert detector.drifts() == before[1]
    assert detections_of(detector, STORY[33:]) == detections_of(
        DriftDetector.from_bytes(before[0], ZONES, THRESHOLD), STORY[33:]
    )


def test_a_detector_over_nothing_works() -> None:
    """A detector without bands detects nothing."""
    detector = DriftDetector({}, THRESHOLD)
    assert detections_of(detector, STORY) == []
    assert detector.drifts() == ()
    assert DriftDetector.from_bytes(detector.to_bytes(), {}, THRESHOLD).drifts() == ()


def test_a_restart_after_any_block_changes_nothing() -> None:
    """Detections and state are bit-identical after a restart at any block."""
    whole = DriftDetector(ZONES, THRESHOLD)
    detections = detections_of(whole, STORY)
    again, found = DriftDetector(ZONES, THRESHOLD), []
    for block in STORY:
        again = DriftDetector.from_bytes(again.to_bytes(), ZONES, THRESHOLD)
        found += again.advance(block)
    assert found == detections
    assert again.to_bytes() == whole.to_bytes()


def test_a_restart_knows_rates_by_their_key() -> None:
    """Saved state is matched by key, in any order."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, STORY[:32])
    turned = DriftDetector.from_bytes(detector.to_bytes(), dict(reversed(ZONES.items())), THRESHOLD)
    assert turned.drifts() == detector.drifts()[::-1]


@pytest.mark.parametrize("restarted", [False, True])
def test_only_rates_with_the_same_zone_go_on(restarted: bool) -> None:
    """A new reference, function or slice restarts; other rates keep their evidence."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, STORY[:32])
    edited = RateKey("short", "f3", "coverage")
    zones = {edited: ZONES[SHORT], SPAM: coverage_band(Rate(1_001, 50_000), 0.1, 200), ALL: ZONES[ALL]}
    kept = detector.drifts()[2]
    if restarted:
        detector = DriftDetector.from_bytes(detector.to_bytes(), zones, THRESHOLD)
    else:
        detector.rezone(zones)
    short, spam, everything = detector.drifts()
    assert everything == kept
    assert kept.evidence > 0
    assert [(each.evidence, each.observed.n) for each in (short, spam)] == [(0, 0)] * 2
    assert short.fingerprint == "f3"


def test_state_of_an_earlier_version_goes_on() -> None:
    """Its references had fewer rows than were counted, so other bands are the same rate."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, STORY[:32])
    head, _, body = zlib.decompress(detector.to_bytes()).partition(b"\n")
    header = json.loads(head)
    header["zones"] = [band[:5] for band in header["zones"]]
    earlier = zlib.compress(json.dumps(header).encode() + b"\n" + body)
    zones = {**ZONES, ALL: coverage_band(Rate(4_510, 5_012, 5_000), 0.01, 200)}
    again = DriftDetector.from_bytes(earlier, zones, THRESHOLD).drifts()
    assert [each.evidence for each in again] == [each.evidence for each in detector.drifts()]
    assert [each.observed for each in again] == [each.observed for each in detector.drifts()]
    assert again[2].zone == zones[ALL]


@pytest.mark.parametrize(("contents", "alarms"), [(2, 0), (3, 0), (None, 1)])
def test_repeats_of_few_contents_are_no_evidence(contents: int | None, alarms: int) -> None:
    """8,000 live rows at 58.5% against 221 of 229: evidence only where the 229 rows are independent."""
    band = coverage_band(Rate(221, 229, contents), 0.01, 200)
    detector = DriftDetector({ALL: band}, THRESHOLD)
    live = [Observation.of(at(b), at(b + 1), {ALL: Rate(585, 1_000)}) for b in range(8)]
    assert bool(detections_of(detector, live)) is bool(alarms)


def test_damaged_state_is_refused() -> None:
    """Truncated, changed and foreign bytes are errors."""
    state = DriftDetector(ZONES, THRESHOLD).to_bytes()
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
        with pytest.raises(ValueError, match="damaged: start a new detector"):
            DriftDetector.from_bytes(each, ZONES, THRESHOLD)


def test_state_of_another_release_is_refused() -> None:
    """Evidence against other alternatives is void."""
    state = zlib.decompress(DriftDetector(ZONES, THRESHOLD).to_bytes()).replace(b'"format": 2', b'"format": 3')
    with pytest.raises(ValueError, match="has format 3, this release reads 2: start a new detector"):
        DriftDetector.from_bytes(zlib.compress(state), ZONES, THRESHOLD)


def test_state_of_the_first_release_continues() -> None:
    """It had the logarithm of what is stored now, and no divisors."""
    detector = DriftDetector(ZONES, THRESHOLD)
    detections_of(detector, blocks({SHORT: 0.17, SPAM: 0.035, ALL: 0.85}, 300, 3))
    head, _, body = zlib.decompress(detector.to_bytes()).partition(b"\n")
    arrays = np.frombuffer(body, "<f8").copy()
    cells = ALTERNATIVES * len(ZONES)
    arrays[:cells] = np.log(arrays[:cells])
    first = head.replace(b'"format": 2', b'"format": 1') + b"\n" + arrays[:-cells].tobytes()
    continued = DriftDetector.from_bytes(zlib.compress(first), ZONES, THRESHOLD)
    for standing, other in zip(continued.drifts(), detector.drifts(), strict=True):
        assert standing.evidence == other.evidence > 0
        assert (standing.since, standing.observed) == (other.since, other.observed)
    for each in (continued, detector):
        detections_of(each, blocks({SHORT: 0.17, SPAM: 0.035, ALL: 0.85}, 300, 1, first=3))
    assert [each.evidence for each in continued.drifts()] == pytest.approx(
        [each.evidence for each in detector.drifts()]
    )


def test_a_zone_can_be_wide_open() -> None:
    """A reference without rows gives a band that no rate leaves."""
    detector = DriftDetector({SPAM: ToleranceBand(Rate(0, 0), 0.0, 1.0, 0.1)}, THRESHOLD)
    assert detections_of(detector, blocks({SPAM: 0.5}, 1_000, 5) + blocks({SPAM: 1.0}, 1_000, 5, first=5)) == []


UP = RateKey("rare", "f", "coverage")


def without_unknown(block: Observation) -> Observation:
    return Observation.of(block.start, block.end, block.rates(block.keys))


def test_a_few_known_rows_raise_no_alarm() -> None:
    """Of 1,140 rows in blocks of one, 69 are known, all of them members; the same rows alone do alarm."""
    band = {UP: coverage_band(Rate(4_000, 50_000), 0.1, 200)}
    known = set(np.random.default_rng(0).choice(1_140, 69, replace=False).tolist())
    rows = [Rate(1, 1) if n in known else Rate(0, 0) for n in range(1_140)]
    story = [Observation.of(at(n), at(n + 1), {UP: rate}, {} if rate.n else {UP: 1}) for n, rate in enumerate(rows)]
    assert detections_of(DriftDetector(band, THRESHOLD), story) == []
    assert detections_of(DriftDetector(band, THRESHOLD), [without_unknown(block) for block in story])


@settings(deadline=None)
@given(
    blocks=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)), max_size=12
    )
)
def test_unknown_rows_are_no_evidence_whatever_they_are(blocks: list[tuple[int, int, int, int]]) -> None:
    """The evidence is at most that of the full counts, for which the bound on false alarms holds."""
    seen, full = DriftDetector(ZONES, 1e9), DriftDetector(ZONES, 1e9)
    for b, (members, others, unknown_members, unknown_others) in enumerate(blocks):
        unknown = unknown_members + unknown_others
        rows = members + others + unknown
        given = Observation.of(at(b), at(b + 1), {SHORT: Rate(members, members + others)}, {SHORT: unknown})
        seen.advance(given)
        full.advance(Observation.of(at(b), at(b + 1), {SHORT: Rate(members + unknown_members, rows)}))
    evidence = seen.drifts()[1].evidence, full.drifts()[1].evidence
    assert evidence[0] <= evidence[1] + 1e-9


@pytest.mark.parametrize(("share", "alarms"), [(0.05, True), (0.3, True), (0.9, False)])
def test_a_change_is_seen_through_some_unknown_rows(share: float, alarms: bool) -> None:
    """A slice that grows threefold alarms while a part of the rows is unknown, not while most are."""
    n, unknown = 300, int(300 * share)
    known = n - unknown
    story = [
        Observation.of(at(b), at(b + 1), {SPAM: Rate(round(0.06 * known), known)}, {SPAM: unknown}) for b in range(60)
    ]
    assert bool(detections_of(DriftDetector(ZONES, THRESHOLD), story)) == alarms
