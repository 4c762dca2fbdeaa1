"""Text messages with one topic held back and streamed later."""

from pathlib import Path

import pandas as pd
import pytest
from sms_topic import CALM_MINUTES, TRAINED, Stream, replay


@pytest.mark.data
def test_the_slice_of_a_new_topic_alarms_alone(tmp_path: Path, data_dir: Path) -> None:
    """It rises from its first message on, within hours and some twenty messages; before, nothing alarms."""
    found = replay(data_dir, "ringtones", tmp_path)
    assert found["calm_minutes"] >= CALM_MINUTES
    assert found["direction"] == "up"
    assert found["since"] <= 10
    assert found["minutes"] <= 8 * 60
    assert found["seen"] <= 25
    assert (found["early"], found["others"]) == ([], [])


def test_a_topic_is_held_back() -> None:
    """None of its messages trains the model or comes early; all others stay in their order until it comes."""
    texts = [f"message {k}" if k % 9 else f"a Polyphonic ringtone, {k}" for k in range(6_000)]
    stream = Stream.of(pd.DataFrame({"text": texts, "label": "ham"}), "ringtones")
    others = [text for text in texts if "Polyphonic" not in text]
    assert list(stream.train["text"]) == others[:TRAINED]
    assert list(stream.rows["text"][:CALM_MINUTES]) == others[TRAINED : TRAINED + CALM_MINUTES]
    assert sorted(stream.rows["text"]) == sorted({*texts} - {*others[:TRAINED]})
    assert stream.of_topic.sum() == 6_000 // 9 + 1
    assert stream.rows["at"].is_monotonic_increasing
