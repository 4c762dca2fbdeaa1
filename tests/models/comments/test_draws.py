"""The plan of a block: shares as the profile says, duplicates that repeat, draws that stay put."""

import numpy as np
import pytest

from models.comments.draws import BLOCK_ROWS, plan_block
from models.comments.profile import DEFAULT, Profile, Schedule, SliceProfile


def test_a_block_is_a_function_of_seed_and_number() -> None:
    """The same block twice is equal; another seed or another block differs."""
    first = plan_block(3, 5, DEFAULT)
    again, other_seed, other_block = (plan_block(s, b, DEFAULT) for s, b in ((3, 5), (4, 5), (3, 6)))
    assert np.array_equal(first.choices, again.choices)
    assert not np.array_equal(first.choices, other_seed.choices)
    assert not np.array_equal(first.choices, other_block.choices)


def test_the_bits_of_the_stream_are_pinned() -> None:
    """Philox's raw bits do not depend on the version of numpy, so a stream stays what it was."""
    plan = plan_block(0, 0, DEFAULT)
    assert plan.own_choices[:2, :3].tolist() == [
        [1409706488, 2072760509, 1271366096],
        [1729601252, 401160876, 2069359861],
    ]


def test_duplicates_repeat_an_earlier_row_of_their_block() -> None:
    """A duplicate has the content of an earlier row and everything else of its own."""
    plan = plan_block(1, 2, Profile(DEFAULT.slices, duplicates=0.2))
    again = plan.source != plan.position
    assert 0.15 < again.mean() < 0.25
    assert (plan.source[again] < plan.position[again]).all()
    assert (plan.source >= 2 * BLOCK_ROWS).all()
    rows, sources = np.flatnonzero(again), plan.source[again] - 2 * BLOCK_ROWS
    assert np.array_equal(plan.choices[rows], plan.choices[sources])
    assert np.array_equal(plan.member[rows], plan.member[sources])
    assert not np.array_equal(plan.own_choices[rows], plan.own_choices[sources])


def test_a_change_of_one_slice_leaves_the_others_as_they_were() -> None:
    """Each slice has draws of its own: profiles that differ in one slice differ in nothing else."""
    plan, changed = (
        plan_block(0, 1, DEFAULT),
        plan_block(0, 1, DEFAULT.changed("short_link", 0, coverage=0.08)),
    )
    names = [piece.name for piece in DEFAULT.slices]
    s = names.index("short_link")
    others = [k for k in range(len(names)) if k != s]
    assert np.array_equal(plan.label, changed.label)
    assert np.array_equal(plan.member[:, others], changed.member[:, others])
    assert plan.member[:, s].sum() < changed.member[:, s].sum()


def test_slices_of_fewer_profiles_keep_their_draws() -> None:
    """A profile with a part of the slices has the same members there, in whatever order it names them."""
    names = [piece.name for piece in DEFAULT.slices]
    picked = ("html_markup", "non_english")
    plan = plan_block(0, 0, DEFAULT)
    part = plan_block(0, 0, Profile(tuple(DEFAULT[name] for name in picked)))
    assert np.array_equal(part.member, plan.member[:, [names.index(name) for name in picked]])


def test_short_comments_take_no_part_in_a_campaign() -> None:
    """A short comment that also belongs to a slice with novelty is never novel; other members mostly are."""
    profile = DEFAULT.changed("html_markup", 0, coverage=0.4, novelty=1.0)
    plan, names = plan_block(0, 0, profile), [piece.name for piece in profile.slices]
    html, short = (plan.member[:, names.index(name)] for name in ("html_markup", "short_comment"))
    assert (html & short).sum() > 20
    assert not plan.novel[short].any()
    assert plan.novel[html & ~short].all()


@pytest.mark.parametrize("spam_share", [0.0, 1.0])
def test_traffic_of_one_class_is_possible(spam_share: float) -> None:
    """With a slice that agrees, all rows may be ham or all spam."""
    piece = SliceProfile("html_markup", Schedule(0.5), Schedule(spam_share))
    plan = plan_block(0, 0, Profile((piece,), spam_share=Schedule(spam_share), label_noise=0.0))
    assert set(plan.given.tolist()) == {int(spam_share)}
    assert 0.4 < plan.member.mean() < 0.6
