"""Real series replayed: the electricity market with its seasons, shuffled copies of it, and messages with a new topic.

    python tests/benchmarks/bench_elec.py --data FOLDER --out FILE.json --image FILE.svg [--copies 10] [--cache DIR]

FOLDER is that of docs/data.md. Every replay is `slicewatch drift replay` without a project. One of the market takes a
minute or two of a core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drift_streams import cached, parser_of, table, write
from elec_series import CHANGES, CONTROLS, WEEK, ElecSeries, JudgedAlarm, SeenChange, SliceRows, judge, picture
from sms_topic import CALM_MINUTES, TOPICS, TRAINED
from sms_topic import replay as replay_topic

Alarms = list[dict[str, Any]]


def replay(rows: SliceRows) -> Alarms:
    """Return the alarms of a replay of the counts."""
    with tempfile.TemporaryDirectory() as folder:
        rows.write_counts(Path(folder) / "counts.csv")
        words = [sys.executable, "-m", "service", "drift", "replay", "counts.csv", "--json"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    alarms: Alarms = json.loads(done.stdout)["alarms"]
    return alarms


def replays(rows: SliceRows, copies: int) -> dict[str, Alarms]:
    """Return the alarms of the series, and of shuffled copies by seed."""
    found = {"series": replay(rows)}
    for seed in range(copies):
        found[str(seed)] = replay(rows.shuffled(seed))
        print(f"shuffled copy {seed}: {len(found[str(seed)])} alarms", file=sys.stderr, flush=True)
    return found


def topics(data: Path) -> list[dict[str, Any]]:
    """Return what alarms when each topic of the messages is held back and streamed later."""
    found = []
    for topic in TOPICS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(replay_topic(data, topic, Path(folder)))
    return found


def seen_table(rows: SliceRows, alarms: Sequence[JudgedAlarm]) -> dict[str, Any]:
    """Return the table of the changes to see, with the first alarm of each."""
    said = (
        f"The electricity market of New South Wales (Harries, 1999): {len(rows.label):,} half hours from 7 May 1996 to "
        f"5 December 1998, and {len(rows.names)} slices by demand, price and transfer, whose limits are those of the "
        "first four weeks. One row is one observation: a month has 1,440. The file has 4 May 1997 twice, once of which "
        "is left out. The changes below were read off the weekly rates before a detector was run on the series. In the "
        "replay nothing is expected at first: the baseline is learned on the way, and no alarm is accepted as new "
        "normal. An alarm belongs to a change if it is of one of its slices and directions, and states a start at most "
        "a week outside its days."
    )
    head = ("begins", "what is seen", "slices", "alarms", "first alarm")
    return table(said, head, (_seen(change, alarms) for change in CHANGES))


def _seen(change: SeenChange, alarms: Sequence[JudgedAlarm]) -> tuple[str, ...]:
    slices = [f"`{name}` {direction}" for direction in ("up", "down") for name in getattr(change, direction)]
    own = sorted((each for each in alarms if each.change == change), key=lambda each: each.raised)
    first = f"{own[0].raised:%-d %b %Y}, `{own[0].slice}`" if own else "none"
    what = change.what + (" (yearly)" if change.yearly else "")
    return f"{change.first:%-d %b %Y} to {change.last:%-d %b}", what, ", ".join(slices), str(len(own)), first


def slices_table(alarms: Sequence[JudgedAlarm]) -> dict[str, Any]:
    """Return the table of the slices that alarmed."""
    by_slice: dict[str, list[JudgedAlarm]] = {}
    for each in alarms:
        by_slice.setdefault(each.slice, []).append(each)
    said = (
        "The alarms by slice, and whether a person would agree: with one that is a listed change, or whose rate in the "
        "two weeks from the start that it states is half as high again as in the first four weeks or in the four weeks "
        "before, or, if it fell, two thirds of it at most."
    )
    body = []
    for name, own in sorted(by_slice.items(), key=lambda item: -len(item[1])):
        listed, plain = (
            sum(map(test, own)) for test in (lambda each: each.change is not None, lambda each: each.plain)
        )
        days = f"{min(each.raised for each in own):%-d %b %Y} to {max(each.raised for each in own):%-d %b %Y}"
        directions = " and ".join(sorted({each.direction for each in own}))
        body.append((name, directions, len(own), days, listed, plain - listed, len(own) - plain))
    head = ("slice", "direction", "alarms", "raised", "listed", "moved otherwise", "a person would not agree")
    return table(said, head, body)


def figures(found: dict[str, Alarms], alarms: Sequence[JudgedAlarm], missed: Sequence[SeenChange]) -> dict[str, Any]:
    """Return the table of the figures."""
    of_copies = [len(each) for seed, each in found.items() if seed != "series"]
    of_controls = sum(each.slice in CONTROLS for each in alarms)
    said = f"{len(of_copies)} copies have the same rows in a random order, in which nothing changes."
    body = [
        ("alarms of the shuffled copies", str(sum(of_copies)), "0", _met(sum(of_copies) == 0)),
        ("alarms of the series", str(len(alarms)), "", ""),
        ("of them such that a person would agree", str(sum(each.plain for each in alarms)), "", ""),
        ("of them of slices that cannot drift", str(of_controls), "0", _met(of_controls == 0)),
        ("listed changes with an alarm", f"{len(CHANGES) - len(missed)} of {len(CHANGES)}", "", ""),
    ]
    return table(said, ("measurement", "value", "target", "met"), body)


def _met(reached: bool) -> str:
    return "yes" if reached else "**no**"


def topics_table(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the table of the topics."""
    said = (
        f"Text messages (SMS Spam Collection): {TRAINED:,} without a topic train the model of a project as "
        "`slicewatch init` writes it, with a slice for each of these topics. The others arrive once a minute, in their "
        f"order; those of the topic are held back for {CALM_MINUTES:,} minutes, and then spread over the rest. The "
        "alarm of the topic comes so long, and so many of its messages, after the first of them:"
    )
    body = [
        (
            each["topic"],
            each["messages"],
            "none" if each["minutes"] is None else f"{each['direction']}, {each['minutes'] / 60:.1f} h",
            each["seen"] or "",
            len(each["early"]),
            ", ".join(each["others"]) or "none",
            _met(each["direction"] == "up" and not each["early"]),
        )
        for each in found
    ]
    head = ("topic", "messages", "alarm after", "messages until then", "alarms before", "other slices")
    return table(said, (*head, "up, and none before"), body)


def main() -> int:
    """Replay, draw, print and write; 1 when a figure is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--image", type=Path, required=True, help="where the picture goes")
    parser.add_argument("--copies", type=int, default=10, help="shuffled copies")
    options = parser.parse_args()
    rows = ElecSeries.read(options.data).rows()
    found = cached(options.cache, "elec", lambda: replays(rows, options.copies), copies=options.copies)
    alarms, missed = judge(rows, found["series"])
    options.image.write_text(picture(rows, alarms), encoding="utf-8")
    tables = [seen_table(rows, alarms), slices_table(alarms), figures(found, alarms, missed)]
    held = cached(options.cache, "topics", lambda: topics(options.data), trained=TRAINED, calm=CALM_MINUTES)
    tables.append(topics_table(held))
    write(options.out, tables, dispersion=sorted(rows.dispersion(WEEK, slice(None)).tolist()))
    return int(any("**no**" in row for each in tables for row in each["rows"]))


if __name__ == "__main__":
    sys.exit(main())
