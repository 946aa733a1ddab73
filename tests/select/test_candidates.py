"""Candidates: many small frames become one, whatever the cut, and decide alike."""

from __future__ import annotations

import random
from hashlib import blake2b

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.config import Select
from mmdata.samples import draws, modality_signature
from tests.support.selecting import compacted, decide, sample

SAMPLES = st.lists(
    st.builds(
        lambda number, like, score, caption, aspect: sample(
            number,
            url=f"http://host.test/{like}.jpg",
            clip_score=score,
            caption=caption,
            aspect=aspect,
            cluster=like % 4,
        ),
        st.integers(0, 40),
        st.integers(0, 25),
        st.sampled_from([None, float("nan"), 0.1, 0.2, 0.3]),
        st.sampled_from([None, "", "a cat", "the longer caption of a dog"]),
        st.sampled_from([1.0, 9.0]),
    ),
    max_size=40,
    unique_by=lambda one: one["uid"],
)


@settings(max_examples=60)
@given(SAMPLES, st.integers(1, 5), st.randoms())
def test_any_order_and_any_cut_decides_alike(samples: list[dict], cuts: int, shuffler: random.Random) -> None:
    shuffled = shuffler.sample(samples, len(samples))
    assert decide([samples]).equals(decide([shuffled[number::cuts] for number in range(cuts)]))


@settings(max_examples=30)
@given(SAMPLES, st.data())
def test_at_equal_rates_added_rows_change_no_draw(samples: list[dict], data: st.DataObject) -> None:
    free = Select.model_validate({"balance": {"max_ratio": None}, "oversample": {"max_repeats": 1}})
    uids = pl.Series([one["uid"] for one in samples], dtype=pl.String)
    some = data.draw(st.integers(0, len(samples)))
    assert draws(uids, 0, "modality")[:some].equals(draws(uids[:some], 0, "modality"))
    alone = [
        one | {"url": one["uid"], "sha256": None, "phash": None, "aspect": 1.0, "clip_score": 0.2} for one in samples
    ]
    before = decide([alone[:some]], free).select("uid", "reason", "rate", "repeats")
    after = decide([alone], free).filter(pl.col("uid").is_in(before["uid"].to_list()))
    assert after.select(before.columns).equals(before)


def test_a_uid_counts_all_its_copies_wherever_they_stand() -> None:
    one, other = sample(1), sample(2)
    found = decide([[one], [other | {"copies": 4}], [one | {"copies": 2}, other]])
    assert dict(found.select("uid", "copies").iter_rows()) == {one["uid"]: 3, other["uid"]: 5}


@pytest.mark.parametrize("kind", ["image", "video", "audio", "text"])
@pytest.mark.parametrize("caption", [None, "", "words"])
@pytest.mark.parametrize("audio_s", [None, 4.0])
@pytest.mark.parametrize("transcript", [None, "what was said"])
def test_the_signature_is_that_of_the_sample(
    kind: str, caption: str | None, audio_s: float | None, transcript: str | None
) -> None:
    frame = compacted(sample(0, kind=kind, caption=caption, audio_s=audio_s, transcript=transcript))
    wanted = modality_signature(kind, bool(caption or transcript), has_audio=audio_s is not None)
    assert frame["signature"].to_list() == [wanted]


def clip(number: int, url: str, start_s: float | None, end_s: float | None, **given: object) -> dict:
    return sample(number, kind="video", url=url, start_s=start_s, end_s=end_s, phash=None, **given)


def test_clips_of_one_file_are_no_duplicates_and_the_same_clip_told_twice_is() -> None:
    url = "https://www.youtube.com/watch?v=abc"
    spans = [(0.0, 10.0), (10.0, 20.5), (None, None), (10.0, 20.5), (0.0, 10.001)]
    samples = [clip(number, url, *span, clip_score=0.3 - number / 100) for number, span in enumerate(spans)]
    samples = [
        one | {"uid": f"{number:032x}", "sha256": f"{number:016x}{0:048x}"} for number, one in enumerate(samples)
    ]
    reasons = dict(decide([samples]).select("uid", "reason").iter_rows())
    assert list(reasons.values()) == [None, None, None, "duplicate:url", None]
    frame = compacted(*samples)
    assert frame["file"].n_unique() == 1
    assert frame["url"].n_unique() == 4


def test_times_that_no_integer_holds_stop_nothing() -> None:
    frame = compacted(*(clip(number, "https://example.org/a", 0.0, end_s) for number, end_s in enumerate((1.0, 1e300))))
    assert frame["url"].n_unique() == 2


def test_the_file_of_a_clip_is_the_same_number_for_ever() -> None:
    frame = compacted(
        clip(0, "https://host.test/a.mp4", 0.0, 5.0),
        sample(1, kind="audio", url="https://host.test/a.mp4"),
        sample(2, url="https://host.test/a.mp4"),
        sample(3, kind="text", url=None),
    )
    number = int.from_bytes(blake2b(b"https://host.test/a.mp4", digest_size=8).digest(), "little")
    assert frame["file"].to_list() == [number, number, None, None]


def test_a_transcript_counts_as_words_where_there_is_no_caption() -> None:
    rows = [
        sample(0, kind="audio", caption=None, transcript="five words that were said"),
        sample(1, kind="audio", caption="", transcript="a b c"),
        sample(2, kind="audio", caption="a b c d e f", transcript="other words"),
        sample(3, kind="audio", caption=None),
    ]
    assert compacted(*rows)["weight"].to_list() == [7, 4, 8, 0]


def test_seconds_are_those_of_the_clip_as_cut_and_pictures_have_none() -> None:
    select = Select.model_validate({"balance": {"by": "seconds"}})
    rows = [
        clip(0, "https://host.test/a.mp4", 0.0, 30.0, duration_s=12.5, audio_s=12.4),
        sample(1, kind="audio", duration_s=None, audio_s=2.25),
        sample(2, audio_s=3.0),
        sample(3),
        sample(4, kind="text", url=None),
    ]
    assert compacted(*rows, select=select, duration_s=pl.Float64())["weight"].to_list() == [12500, 2250, 3000, 0, 0]


def test_a_rule_of_the_source_is_the_reason_whether_or_not_the_medium_was_fetched() -> None:
    rule = {"error": "rule:min.similarity"}
    samples = [sample(0, **rule), sample(1, status="refused", **rule), sample(2, status="refused", error="robots")]
    assert sorted(decide([samples])["reason"]) == ["media:robots", "rule:min.similarity", "rule:min.similarity"]
