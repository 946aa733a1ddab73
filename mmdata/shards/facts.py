"""The `.json` of a sample in a shard: one fixed set of keys, each with one type, for all samples of a release.

Every release has `FACTS`; one with generated captions also has `CAPTION_FACTS`.

Readers such as Hugging Face `datasets` infer the columns of a dataset from its first samples. So a key is never
missing, a value is never null, and what has structure of its own is a text of JSON. Then no sample can have another
column type than those before it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from mmdata.fingerprint import canonical_json


class Fact(NamedTuple):
    """A key of the `.json`.

    Args:
        type: str, int (fits int64) or float (finite, and written with a decimal point or an exponent).
        unknown: the value where there is none.
        meaning: one phrase for the page on formats.
    """

    name: str
    type: type[str] | type[int] | type[float]
    unknown: str | int | float
    meaning: str


FACTS = (
    Fact("uid", str, "", "identity of the sample"),
    Fact("url", str, "", "canonical URL of the file; a text has none"),
    Fact("source", str, "", "name of the source in corpus.yaml"),
    Fact("signature", str, "", "what the sample holds, such as `image+text`"),
    Fact("split", str, "", "`train` or `validation`"),
    Fact("lang", str, "", "detected language of the text"),
    Fact("sha256", str, "", "of the fetched file, or of file and times of a clip"),
    Fact("synthetic", str, "", "the modality that a machine made, such as `audio`"),
    Fact("transcript", str, "", "what was heard, where it stands for a caption that the source lacks"),
    Fact("extra", str, "{}", "a JSON object: the source's own columns, as they are"),
    Fact("frame_times_s", str, "[]", "a JSON list of numbers: when the frames are shown in the file that was cut"),
    Fact("width", int, 0, "of the stored picture or frames, in pixels"),
    Fact("height", int, 0, "of the stored picture or frames, in pixels"),
    Fact("original_width", int, 0, "of the picture or video as it was fetched, in pixels"),
    Fact("original_height", int, 0, "of the picture or video as it was fetched, in pixels"),
    Fact("augment", int, 0, "seed by which a trainer varies a copy, below 2^53; the first copy has none"),
    Fact("clip_score", float, -2.0, "cosine of media and text, rounded to 6 decimals; a cosine is never under -1"),
    Fact("start_s", float, -1.0, "start of a clip in its file"),
    Fact("end_s", float, -1.0, "end of a clip in its file"),
    Fact("duration_s", float, -1.0, "length of the clip or recording"),
    Fact("fps", float, -1.0, "frames a second of the video that was cut"),
    Fact("audio_s", float, -1.0, "length of the stored sound"),
)
"""Facts only: what a release decided (repeats, concept, cluster) stands in its index, so that a changed decision about
other samples does not change these bytes. Keys may be added in a later format of releases, never changed."""

CAPTION_FACTS = (
    Fact("original_caption", str, "", "the text of the source, where a generated caption is the text in its place"),
    Fact("generated_caption", str, "", "caption by the model in `recaption.model`"),
    Fact("generated_by", str, "", "name of that model, and fingerprint of its weights and prompt"),
    Fact("generated_score", float, -2.0, "cosine of media and generated caption, rounded to 6 decimals"),
    Fact("caption_agreement", float, -2.0, "cosine of the generated caption and the source's, rounded to 6 decimals"),
)
"""Facts of releases with generated captions."""

_ROUNDED = ("clip_score", "generated_score", "caption_agreement")
_JSON_TEXTS = {"extra": dict, "frame_times_s": list}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def release_facts(has_captions: bool) -> tuple[Fact, ...]:
    """The keys of the `.json` in a release. Args: has_captions: whether captions were generated for it."""
    return (*FACTS, *CAPTION_FACTS) if has_captions else FACTS


def facts(frame: pl.DataFrame, has_captions: bool = False) -> Iterator[bytes]:
    """The `.json` of each sample, as canonical JSON: the same facts give the same bytes.

    Args:
        frame: has a column of each name in `release_facts`; null where there is no value.
    """
    keys = release_facts(has_captions)
    for row in frame.select(fact.name for fact in keys).iter_rows(named=True):
        row["extra"] = row["extra"] or "{}"
        row["frame_times_s"] = canonical_json(row["frame_times_s"] or [])
        row |= {name: round(row[name], 6) for name in _ROUNDED if row.get(name) is not None}
        yield canonical_json({fact.name: _value(fact, row[fact.name]) for fact in keys}).encode()


def _value(fact: Fact, value: Any) -> Any:
    is_unknown = value is None or (fact.type is float and not math.isfinite(value))
    return fact.unknown if is_unknown else fact.type(value)


def facts_problem(content: Any, has_captions: bool = False) -> str | None:
    """How the parsed `.json` of a sample departs from `release_facts`; None if it does not."""
    types = {fact.name: fact.type for fact in release_facts(has_captions)}
    if not isinstance(content, dict):
        return "is not a JSON object"
    if missing := sorted(types.keys() - content.keys()):
        return f"lacks {', '.join(missing)}"
    if unknown := sorted(content.keys() - types.keys()):
        return f"has unknown keys: {', '.join(unknown)[:200]}"
    return next((problem for name in types if (problem := _value_problem(name, content[name], types[name]))), None)


def _value_problem(name: str, value: Any, wanted: type) -> str | None:
    if type(value) is not wanted:
        return f"{name} is {type(value).__name__}, not {wanted.__name__}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{name} is {value}, which does not fit 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}"
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        return f"{name} is not valid Unicode"
    if name in _JSON_TEXTS and not _is_json(str(value), _JSON_TEXTS[name]):
        return f"{name} is not the text of a JSON {_JSON_TEXTS[name].__name__}"
    return None


def _is_json(text: str, wanted: type) -> bool:
    try:
        return isinstance(json.loads(text), wanted)
    except (ValueError, RecursionError):
        return False
