"""Text messages of which one topic is held back, and streamed later: when the slice of the topic alarms.

    python tests/benchmarks/sms_topic.py --data FOLDER [--topic ringtones]

FOLDER is that of docs/data.md. The project is the one that `slicewatch init` writes for the messages, with a slice per
topic; its model is trained on a part without the topic. The others arrive once a minute from a Monday on, in their
order; those of the topic are spread over the last ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.comments.public import load_sms

TOPICS = {
    "ringtones": r"ring ?tones?\b|polyphonic|\btones?\b",
    "prizes": r"\b(?:prize|award|awarded|won|winner)\b",
    "dating": r"\b(?:dating|date|chat)\b",
    "films": r"\b(?:cinema|films?|movies?)\b",
}
TRAINED, SEED = 1_000, 7
CALM_MINUTES = 3_000  # two days and two hours
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages for training, messages of the stream, and of the latter whether they are of the topic, bool[N]."""

    train: pd.DataFrame
    rows: pd.DataFrame
    of_topic: pd.Series[bool]

    @classmethod
    def of(cls, messages: pd.DataFrame, topic: str) -> Stream:
        """Hold back the messages of a topic until ``CALM_MINUTES`` of the others have passed."""
        of_topic = messages["text"].str.contains(TOPICS[topic], case=False, regex=True)
        others, held = messages[~of_topic], messages[of_topic]
        streamed = others.iloc[TRAINED:]
        last = pd.concat([streamed.iloc[CALM_MINUTES:], held]).sample(frac=1, random_state=SEED)
        rows = pd.concat([streamed.iloc[:CALM_MINUTES], last])
        at = pd.Series(pd.date_range(BEGIN, periods=len(rows), freq=_MINUTE), index=rows.index)
        return cls(others.iloc[:TRAINED], rows.assign(at=at), of_topic[rows.index])


def replay(data: Path, topic: str, folder: Path) -> dict[str, Any]:
    """Train without a topic in an empty folder, stream it later, and return how its slice and the others alarm.

    Start and delay of the alarm of the topic are in minutes since its first message, or None without an alarm.
    """
    stream = Stream.of(load_sms(data / "sms-spam"), topic)
    stream.train.to_csv(folder / "messages.csv", index=False)
    stream.rows.to_csv(folder / "stream.csv", index=False)
    _slicewatch(folder, "init", "sms", "--data", "messages.csv")
    with (folder / "sms/slices.yaml").open("a", encoding="utf-8") as file:
        for name, pattern in TOPICS.items():
            regex = json.dumps({"field": "text", "pattern": pattern.replace("(?:", "("), "ignore_case": True})
            file.write(f"  - {{name: {name}, regex: {regex}}}\n")
    settings = "sms/slicewatch.yaml"
    _slicewatch(folder, "train", "--config", settings)
    document = json.loads(
        _slicewatch(folder, "drift", "replay", "stream.csv", "--time", "at", "--config", settings, "--json")
    )
    first = BEGIN + _MINUTE * int(np.argmax(stream.of_topic))
    alarms = [alarm for alarm in document["alarms"] if alarm["kind"] == "coverage"]
    own = next((alarm for alarm in alarms if alarm["slice"] == topic), None)
    raised = None if own is None else datetime.fromisoformat(own["raised"])
    return {
        "topic": topic,
        "messages": int(stream.of_topic.sum()),
        "calm_minutes": (first - BEGIN) // _MINUTE,
        "minutes": None if raised is None else (raised - first) // _MINUTE,
        "seen": None if raised is None else int(stream.of_topic[: (raised - BEGIN) // _MINUTE].sum()),
        "direction": None if own is None else own["direction"],
        "since": None if own is None else (datetime.fromisoformat(own["since"]) - first) // _MINUTE,
        "early": [alarm["slice"] for alarm in alarms if datetime.fromisoformat(alarm["raised"]) <= first],
        "others": sorted({alarm["slice"] for alarm in alarms} - {topic}),
    }


def _slicewatch(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "service", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"slicewatch {' '.join(words)} failed: {done.stderr}")
    return done.stdout


def main() -> int:
    """Replay every topic, or one, and print what alarmed; 1 if one of them did not, or something did before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--topic", choices=TOPICS, action="append", help="topic that is held back (default: each)")
    options = parser.parse_args()
    found = []
    for topic in options.topic or TOPICS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(replay(options.data, topic, Path(folder)))
        print(found[-1])
    return int(not all(each["direction"] == "up" and not each["early"] for each in found))


if __name__ == "__main__":
    sys.exit(main())
