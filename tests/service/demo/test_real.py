"""The script on real comments."""

from pathlib import Path

import pytest

from models.features import FeatureSpec
from models.splits import content_hashes, held_out
from service.demo.real import real_comments

pytestmark = pytest.mark.data


def test_calm_is_what_was_held_out(data_dir: Path) -> None:
    """The calm phase holds comments of the first two videos that no training sees, and nothing else."""
    script = real_comments(data_dir / "youtube-spam")
    calm = script.rows(0, script.phases[1].start)
    assert held_out(content_hashes(calm, [FeatureSpec("text", "text")])).all()
    assert set(calm["text"]) <= set(script.base()["text"])
    assert set(calm["text"]) == set(script.sample(script.phases[0])["text"])


def test_every_other_comment_comes_once_in_order(data_dir: Path) -> None:
    """The phases after it are the other videos, every comment once, until the stream ends."""
    script = real_comments(data_dir / "youtube-spam")
    assert [phase.name for phase in script.phases] == ["calm", "LMFAO", "Eminem", "Shakira"]
    ends = [*(phase.start for phase in script.phases[2:]), script.length or 0]
    for phase, end in zip(script.phases[1:], ends, strict=True):
        served = script.rows(phase.start, end - phase.start)
        assert served["text"].tolist() == script.sample(phase)["text"].tolist()
    assert len(script.rows((script.length or 0) - 10, 50)) == 10
