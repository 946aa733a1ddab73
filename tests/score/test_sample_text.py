"""Which text a sample has: that of its source, a transcript, or a generated caption."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Recaption
from mmdata.score.sample_text import IS_GENERATED, with_sample_text

ROW: dict[str, Any] = {
    "kind": "image", "caption": "own", "transcript": None, "audio_s": None, "clip_score": 0.2,
    "generated_caption": "made", "generated_score": 0.3, "caption_agreement": 0.5,
    "lang": "de", "generated_lang": "en", "n_words": 1, "generated_n_words": 9,
}  # fmt: skip
KEEP = Recaption(model="one")
REPLACE = Recaption(model="one", use="replace_where_better")
SCHEMA = pl.DataFrame([ROW]).schema | {"transcript": pl.String(), "audio_s": pl.Float64()}


def text(recaption: Recaption, **changes: Any) -> dict[str, Any]:
    return with_sample_text(pl.DataFrame([ROW | changes], schema=SCHEMA), recaption).row(0, named=True)


@pytest.mark.parametrize(
    ("recaption", "changes", "expected"),
    [
        (KEEP, {}, "own"),
        (KEEP, {"caption": None}, "made"),
        (KEEP, {"caption": ""}, "made"),
        (KEEP, {"caption": None, "transcript": "heard"}, "heard"),
        (KEEP, {"caption": None, "generated_caption": None, "generated_score": None}, None),
        (REPLACE, {}, "made"),
        (REPLACE, {"generated_score": 0.2}, "own"),
        (REPLACE, {"generated_score": None}, "own"),
        (REPLACE, {"clip_score": None}, "own"),
        (REPLACE, {"kind": "video"}, "own"),
        (REPLACE, {"audio_s": 2.0}, "own"),
        (REPLACE.model_copy(update={"margin": 0.15}), {}, "own"),
        (REPLACE.model_copy(update={"margin": -0.15}), {"generated_score": 0.1}, "made"),
        (Recaption(use="replace_where_better"), {}, "own"),
    ],
)
def test_the_text_of_a_sample(recaption: Recaption, changes: dict[str, Any], expected: str | None) -> None:
    assert text(recaption, **changes)["caption"] == expected


def test_what_was_measured_of_the_text_goes_with_it() -> None:
    own, made = text(KEEP), text(REPLACE)
    assert (own["clip_score"], own["lang"], own["n_words"], own["caption_agreement"]) == (0.2, "de", 1, 0.5)
    assert (made["clip_score"], made["lang"], made["n_words"], made["caption_agreement"]) == (0.3, "en", 9, None)
    assert (own[IS_GENERATED], made[IS_GENERATED]) == (False, True)


@given(st.lists(st.tuples(*[st.none() | st.floats(-1, 1, width=32)] * 2), max_size=8), st.integers(0, 8))
def test_a_row_has_its_text_whatever_the_rows_beside_it(scores: list[tuple[float | None, ...]], cut: int) -> None:
    rows = [ROW | {"clip_score": own, "generated_score": made} for own, made in scores]
    frame = pl.DataFrame(rows, schema=SCHEMA)
    whole = with_sample_text(frame, REPLACE)
    assert pl.concat([with_sample_text(piece, REPLACE) for piece in (frame[:cut], frame[cut:])]).equals(whole)
    expected = ["made" if None not in pair and pair[1] > pair[0] else "own" for pair in scores]
    assert whole["caption"].to_list() == expected
