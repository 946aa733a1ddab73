"""The planned rows of the demo have the shares, kinds and copies that they claim."""

from __future__ import annotations

from collections import Counter

import pytest

from mmdata.demo.drawings import demo_emoji, demo_photos
from mmdata.demo.picture_plan import ODDITIES, RARE_KINDS, SHARES, plan_rows
from mmdata.errors import UserError


@pytest.fixture(scope="module")
def planned():
    return plan_rows(1500, demo_emoji(), demo_photos())


def test_the_planted_shares_are_what_they_say(planned):
    counted = Counter(row.planted for row in planned)
    assert len(planned) == 1500
    for name, share in SHARES.items():
        assert counted[name] == max(2, round(share * 1500)), name
    for name, (count, _) in ODDITIES.items():
        assert counted[name] == count, name


def test_kinds_have_a_long_tail(planned):
    counted = Counter(row.kind for row in planned if row.planted in ("clean", "rare", "mismatch"))
    ordered = counted.most_common()
    assert ordered[0][1] > 10 * ordered[-2][1]
    assert ordered[-1][0] == "photo"
    assert all(row.kind in RARE_KINDS for row in planned if row.planted == "rare")


def test_a_mismatch_has_another_picture_s_caption(planned):
    kind_of_caption = {row.caption: row.kind for row in planned if row.planted in ("clean", "rare")}
    mismatched = [row for row in planned if row.planted == "mismatch"]
    traceable = [row for row in mismatched if row.caption in kind_of_caption]
    assert len(traceable) > len(mismatched) // 2
    assert all(kind_of_caption[row.caption] != row.kind for row in traceable)
    assert not any(row.picture and row.picture.subject.name in row.caption.split(", ") for row in mismatched)


def test_copies_name_the_row_that_they_copy(planned):
    for row in planned:
        if row.planted in ("near_duplicate", "exact_duplicate", "repeated_row", "repeated_url"):
            original = planned[row.copy_of]
            assert original.planted == "clean"
            assert (row.address == original.address) == (row.planted in ("repeated_row", "repeated_url"))
            assert (row.caption == original.caption) or row.planted != "repeated_row"


def test_no_picture_of_the_demo_is_one_that_the_scorer_may_be_trained_on(planned):
    from mmdata.demo.drawings import training_emoji, training_photos

    trained = {emoji.code for emoji in training_emoji()} | {photo.name for photo in training_photos()}
    shown = {getattr(row.picture.subject, "code", row.picture.subject.name) for row in planned if row.picture}
    assert not shown & trained


def test_too_few_rows_are_refused():
    with pytest.raises(UserError, match="at least 150 rows"):
        plan_rows(50, demo_emoji(), demo_photos())
