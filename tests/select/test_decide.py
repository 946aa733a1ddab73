"""The decisions over all candidates, step by step."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmdata.config import Dedup, Filter, Select
from mmdata.select.decide import balance_and_repeat, drop_duplicates, judge
from mmdata.select.rates import Rates
from mmdata.select.verdicts import STAYS, Verdicts
from tests.support.selecting import compacted, decide, sample

UNBALANCED = {"balance": {"max_ratio": None}}


def test_the_top_fraction_is_of_all_scored_rows_and_other_rules_name_their_own_reason() -> None:
    given = ["filter:language", None, None, "media:http_404", None]
    frame = pl.DataFrame(
        {
            "reason": pl.Series(given, dtype=pl.Categorical),
            "clip_score": pl.Series([0.9, 0.8, 0.1, None, 0.7], dtype=pl.Float32),
            "uid_high": pl.Series(range(5), dtype=pl.UInt64),
            "uid_low": pl.Series([0] * 5, dtype=pl.UInt64),
        }
    )
    verdicts, cuts = judge(frame, Select(filter=Filter(top_fraction=0.5)))  # 2 of the 4 scored rows: 0.9 and 0.8
    cut = cuts["top_fraction"]
    assert (cut.score, cut.high) == (np.float32(0.8), 1)
    low = "filter:top_fraction"
    assert verdicts.reasons().to_list() == ["filter:language", None, low, "media:http_404", low]


def test_a_picture_and_a_clip_are_never_duplicates_of_each_other() -> None:
    same = {"sha256": "0" * 64, "phash": 77, "url": "https://host.test/a", "clip_score": 0.3}
    kinds = ("image", "video", "audio", "video")
    samples = [sample(number, kind=kind, uid=f"{number:032x}", **same) for number, kind in enumerate(kinds)]
    reasons = decide([samples])["reason"].to_list()
    assert reasons == [None, None, None, "duplicate:url"]


def test_a_row_that_was_dropped_before_leads_no_duplicate() -> None:
    url = "http://host.test/same.jpg"
    frame = compacted(*(sample(n, url=url, caption=f"caption {n}", clip_score=0.3 - n / 100) for n in range(3)))
    verdicts = Verdicts(pl.Series([None] * 3, dtype=pl.String))
    verdicts.drop(np.array([0]), "filter:language")
    rank = drop_duplicates(frame, verdicts, Dedup(exact=False, phash_bits=None))
    assert verdicts.reasons().to_list() == ["filter:language", None, "duplicate:url"]
    assert verdicts.leaders.tolist() == [STAYS, STAYS, 1]
    assert rank.argsort().tolist() == [0, 1, 2]


def test_rare_clusters_are_repeated_and_what_is_held_out_stands_there_once() -> None:
    select = Select.model_validate({**UNBALANCED, "oversample": {"threshold": 1.0, "max_repeats": 3}})
    frame = compacted(*(sample(number) for number in range(400)))
    cluster = np.where(np.arange(400) < 360, 0, 1 + np.arange(400) % 40).astype(np.int32)
    verdicts = Verdicts(frame["reason"])
    verdicts.drop(np.array([399]), "filter:language")
    decision = balance_and_repeat(frame, verdicts, cluster, select, 0, 0.3, Rates("s"))
    rare, held_out = (cluster > 0) & (np.arange(400) < 399), decision.validation
    assert 0 < held_out[rare].sum() < rare.sum()
    assert set(decision.repeats[held_out]) == {1}
    assert set(decision.repeats[rare & ~held_out]) == {3}
    assert decision.repeats[399] == 0
    assert not held_out[399]
    assert decision.concept_names[decision.concept[0]] == "c0 image+text"
    assert decision.rates.repeat["c1 image+text"] == 3.0


def test_balancing_drops_the_rows_whose_draw_is_not_below_the_rate_of_their_modality() -> None:
    select = Select.model_validate({"balance": {"max_ratio": 2, "tail_share": 0}, "oversample": {"max_repeats": 1}})
    frame = compacted(*(sample(number, kind="image" if number % 10 else "text") for number in range(500)))
    verdicts = Verdicts(frame["reason"])
    decision = balance_and_repeat(frame, verdicts, np.full(500, -1, np.int32), select, 0, 0.0, Rates("s"))
    signature = frame["signature"].cast(pl.String).to_numpy()
    kept = verdicts.codes == 0
    assert kept[signature == "text"].all()
    assert kept[signature == "image+text"].sum() == 100
    assert set(verdicts.reasons().drop_nulls()) == {"balance:modality"}
    assert set(decision.rate[signature == "text"]) == {1.0}
    assert set(decision.rate[signature == "image+text"]) == {decision.rates.modality["image+text"]}
    assert (decision.repeats == kept).all()


def cut(number: int, caption: str | None, **given: object) -> dict:
    """A clip of ten seconds; all show the same picture."""
    of_clip = {"kind": "video", "phash": 77, "start_s": 10.0 * number, "end_s": 10.0 * number + 10}
    return sample(number, caption=caption, **{"url": "https://host.test/film", **of_clip, "sha256": None, **given})


def near_duplicates(*clips: dict) -> list[bool]:
    """Which of the clips are dropped by their perceptual hash."""
    frame = compacted(*clips)
    verdicts = Verdicts(frame["reason"])
    drop_duplicates(frame, verdicts, Dedup(phash_bits=3))
    dropped = dict(zip(frame["uid_low"], verdicts.reasons() == "duplicate:phash", strict=True))
    return [bool(dropped[int(clip["uid"][16:], 16)]) for clip in clips]


def test_clips_that_look_alike_are_told_apart_by_their_words() -> None:
    first, second = cut(0, "then stir it for a while"), cut(1, "finally serve it", phash=76)
    assert near_duplicates(first, second) == [False, False]
    assert near_duplicates(first, cut(1, "finally serve it", url="https://host.test/other")) == [False, False]
    assert sum(near_duplicates(first, cut(1, "Then stir it, for a while!", phash=76))) == 1
    heard = [cut(0, None, transcript="stir it", audio_s=10.0), cut(1, None, transcript="serve it", audio_s=10.0)]
    assert near_duplicates(*heard) == [False, False]
    named = [clip | {"caption": "how to make soup"} for clip in heard]
    assert near_duplicates(*named) == [False, False], "one caption of the film, and other things are heard"


def test_clips_without_words_are_told_apart_by_their_times() -> None:
    assert near_duplicates(cut(0, None), cut(1, "")) == [False, False]
    assert near_duplicates(cut(0, None, audio_s=10.0), cut(1, "?!", audio_s=10.0)) == [False, False]
    again = cut(0, None, url="https://host.test/uploaded-again", phash=76)
    assert sum(near_duplicates(cut(0, None), again)) == 1


def test_whole_films_are_compared_by_picture_whatever_their_captions() -> None:
    whole = {"start_s": None, "end_s": None}
    films = [cut(number, f"title {number}", url=f"https://host.test/{number}", **whole) for number in range(2)]
    assert sum(near_duplicates(*films)) == 1


def test_many_clips_with_the_same_words_are_compared_as_pictures_are() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**62, 1500).tolist()
    clips = [cut(n, "music", phash=hashes[n % 1500] ^ (n >= 1500)) for n in range(3000)]
    others = [cut(3000 + n, f"words {n % 700}", phash=hashes[0]) for n in range(1400)]
    dropped = near_duplicates(*clips, *others)
    assert sum(dropped[:3000]) == 1500
    assert sum(dropped[3000:]) == 700
