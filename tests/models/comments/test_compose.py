"""A composed comment belongs to exactly its requested slices, independent of the words."""

import random

import pytest

from models.comments.compose import compose
from models.comments.profile import COMPACT, SLICES

WORDY = [name for name in SLICES if name not in COMPACT]


@pytest.mark.parametrize("seed", range(4))
def test_a_comment_belongs_to_the_planted_slices_and_to_no_other(seed: int, detectors) -> None:
    """Over random sets of slices, voices and words, each detector finds its slice and nothing else."""
    rng = random.Random(seed)
    for _ in range(1_500):
        short = rng.random() < 0.3
        possible = [name for name in COMPACT if name != "short_comment"] + ([] if short else WORDY)
        names = frozenset(name for name in sorted(possible) if rng.random() < 0.3) | (
            {"short_comment"} if short else set()
        )
        label, cue, novel = rng.randrange(2), rng.randrange(2), rng.random() < 0.2
        text = compose(frozenset(names), label, cue, novel and not short, [rng.getrandbits(31) for _ in range(48)])
        found = {name for name, detect in detectors.items() if detect(text)}
        assert found == names, text


def test_a_comment_is_a_function_of_its_arguments() -> None:
    """The same choices give the same text, and choices are reused from the start."""
    names = frozenset(WORDY)
    assert compose(names, 1, 1, False, [7, 3, 5]) == compose(names, 1, 1, False, [7, 3, 5] * 40)


def test_the_campaign_has_words_that_other_traffic_lacks() -> None:
    """Most words that tell campaign spam from campaign ham never occur in ordinary comments."""
    rng = random.Random(0)

    def seen(label: int, novel: bool) -> set[str]:
        rows = (
            compose(frozenset(), label, label, novel, [rng.getrandbits(31) for _ in range(48)]) for _ in range(2_000)
        )
        return {word for text in rows for word in text.lower().replace(",", " ").split()}

    ordinary = seen(0, False) | seen(1, False)
    assert {"stagekey", "presale", "wristband", "lantern"} <= seen(1, True)
    assert {"stagekey", "presale", "phishing", "malware"} & ordinary == set()
    assert {"phishing", "malware", "fraudsters"} <= seen(0, True)
