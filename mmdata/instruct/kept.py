"""Reads the kept samples of a release, with the columns that instructions need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Recaption
from mmdata.config.recaption import NO_CAPTIONS
from mmdata.errors import DataError
from mmdata.releases.manifest import DAMAGED_REMEDY
from mmdata.samples import own_columns
from mmdata.score.sample_text import GENERATED_COLUMNS, IS_GENERATED, with_sample_text
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace

_ROWS = ["uid", "kind", "url", "start_s", "end_s", "caption", "lang", "extra"]
_FEATURES = ["uid", "lang", "lang_prob", "transcript", "speech_ratio", "silence_ratio"]

_MEDIA = ["uid", "ext", "further", "synthetic", "audio_s"]

SURE_LANGUAGE = 0.5
"""A detected language less probable than this is not named in an instruction."""

EXACT_DUPLICATES = ("duplicate:url", "duplicate:sha256")
"""Reasons of rows that show the very picture of the row that is kept: their captions are further captions of it."""

QA_COLUMNS: tuple[tuple[str, str], ...] = (
    ("question", "answer"),
    ("query", "answer"),
    ("query", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("q", "a"),
    ("问题", "答案"),
    ("问题", "回答"),
)
"""Pairs of the source's columns that hold a question and its answer, whatever their case."""

FURTHER_CAPTIONS = pl.List(pl.Struct({"lang": pl.String, "caption": pl.String}))
_NO_CAPTIONS = pl.DataFrame(
    schema={"duplicate_of": pl.String, "uid": pl.String, "lang": pl.String, "caption": pl.String}
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The first copies of a release, sorted by uid.

    Args:
        frame: uid, key, shard, split, tokens, kind, url, start_s, end_s, exts (of the stored members), synthetic,
            speech_ratio, silence_ratio, caption, caption_lang, is_told (the caption was spoken, at known times),
            further_captions (in other languages: structs of lang and caption), question, answer, place, row.
        features: the features tables that `place` counts; `row` is the sample's row there.
    """

    frame: pl.DataFrame
    features: Sequence[UPath]


def read_kept(
    workspace: Workspace,
    release_id: str,
    with_qa: bool,
    advance: Callable[[int], None],
    recaption: Recaption = NO_CAPTIONS,
) -> Kept:
    """Read the first copies of a release from its selection, its index and the tables of their slices.

    Memory: the captions and about 200 more bytes a sample.

    Args:
        with_qa: look for question and answer in the source's own columns.
        advance: called with the number of samples that were just read.

    Raises:
        DataError: index and selection disagree, or a table lacks one of their samples.
    """
    folder = workspace.release_dir(release_id)
    columns = ["uid", "key", "shard", "split", "tokens", "copy"]
    index = pl.DataFrame(read_table(folder / "index.parquet", columns)).filter(pl.col("copy") == 0).drop("copy")
    columns = ["uid", "part", "slice", "keep", "reason", "duplicate_of"]
    decisions = pl.DataFrame(read_table(folder / "selection.parquet", columns))
    further = _further_captions(workspace, decisions)
    selection = decisions.drop("reason", "duplicate_of")
    joined = index.join(selection.filter(pl.col("keep")).drop("keep"), on="uid", how="left").sort("uid")
    if lost := joined["part"].null_count():
        raise DataError(
            f"{folder / 'index.parquet'}: {lost} samples are not among the kept ones of selection.parquet. "
            f"{DAMAGED_REMEDY}"
        )
    pieces: list[pl.DataFrame] = []
    features: list[UPath] = []
    for (part, name), group in joined.group_by(["part", "slice"], maintain_order=True):
        pieces.append(_read_slice(workspace, str(part), str(name), group, len(features), with_qa, recaption))
        features.append(workspace.table(str(part), "features", str(name)))
        advance(len(group))
    if not pieces:
        return Kept(joined.drop("part", "slice").with_columns(_no_columns()), features)
    frame = pl.concat(pieces).sort("uid")
    return Kept(frame.join(further, on="uid", how="left", maintain_order="left"), features)


def _further_captions(workspace: Workspace, decisions: pl.DataFrame) -> pl.DataFrame:
    """The captions of exact duplicates: uid of the kept row, and a list of structs of lang and caption.

    One caption a language; of several, that of the lowest uid.

    Args:
        decisions: uid, part, slice, keep, reason, duplicate_of.
    """
    kept = decisions.filter("keep").select(duplicate_of="uid")
    duplicates = decisions.filter(pl.col("reason").is_in(EXACT_DUPLICATES)).join(kept, on="duplicate_of", how="semi")
    captions = [_NO_CAPTIONS]
    for (part, name), group in duplicates.group_by(["part", "slice"], maintain_order=True):
        rows = pl.DataFrame(read_table(workspace.table(str(part), "rows", str(name)), ["uid", "caption", "lang"]))
        scored = read_table(workspace.table(str(part), "features", str(name)), ["uid", "lang", "lang_prob"])
        joined = group.select("uid", "duplicate_of").join(rows.rename({"lang": "said_lang"}), on="uid")
        captions.append(
            joined.join(pl.DataFrame(scored), on="uid").select(
                "duplicate_of", "uid", _language().alias("lang"), "caption"
            )
        )
    one_a_language = (
        pl.concat(captions)
        .filter(pl.col("lang").is_not_null(), pl.col("caption").str.len_bytes() > 0)
        .sort("uid")
        .unique(["duplicate_of", "lang"], keep="first", maintain_order=True)
    )
    grouped = one_a_language.group_by("duplicate_of", maintain_order=True)
    return grouped.agg(further_captions=pl.struct("lang", "caption")).rename({"duplicate_of": "uid"})


def _language() -> pl.Expr:
    """The language that the source names, or the detected one if it is sure; null if neither is known."""
    said = pl.col("said_lang").str.to_lowercase().str.extract(r"^([a-z]{2})(?:[-_].*)?$")
    return pl.coalesce(said, _detected_language())


def _detected_language() -> pl.Expr:
    return pl.when(pl.col("lang_prob") >= SURE_LANGUAGE).then(pl.col("lang"))


def _read_slice(
    workspace: Workspace,
    part: str,
    name: str,
    group: pl.DataFrame,
    place: int,
    with_qa: bool,
    recaption: Recaption,
) -> pl.DataFrame:
    rows = pl.DataFrame(read_table(workspace.table(part, "rows", name), _ROWS)).rename({"lang": "said_lang"})
    media = pl.DataFrame(read_table(workspace.table(part, "media", name), _MEDIA))
    generated = ["clip_score", *GENERATED_COLUMNS, "generated_lang", "generated_lang_prob"] if recaption.is_on else []
    scored = pl.DataFrame(read_table(workspace.table(part, "features", name), [*_FEATURES, *generated]))
    joined = (
        group.drop("part", "slice")
        .join(rows, on="uid", how="left")
        .join(media, on="uid", how="left")
        .join(scored.with_row_index("row"), on="uid", how="left")
    )
    if missing := joined["row"].null_count():
        raise DataError(
            f"part {part}, slice {name}: its tables lack {missing} samples that the selection keeps. {DAMAGED_REMEDY}"
        )
    joined = with_sample_text(joined, recaption)
    questions, answers = (
        question_and_answer(joined["extra"]) if with_qa else ([None] * len(joined), [None] * len(joined))
    )
    first = pl.when(pl.col("ext").is_not_null()).then(pl.concat_list("ext"))
    further = pl.col("further").list.eval(pl.element().struct.field("ext"))
    return joined.select(
        "uid",
        "key",
        "shard",
        "split",
        "tokens",
        "kind",
        "url",
        "start_s",
        "end_s",
        pl.when(pl.col("further").is_null()).then(first).otherwise(first.list.concat(further)).alias("exts"),
        "synthetic",
        "speech_ratio",
        "silence_ratio",
        "caption",
        pl.when(IS_GENERATED).then(_detected_language()).otherwise(_language()).alias("caption_lang"),
        pl.col("extra").str.json_path_match("$.captions").is_not_null().fill_null(value=False).alias("is_told"),
        pl.Series("question", questions, pl.String),
        pl.Series("answer", answers, pl.String),
        pl.lit(place, pl.Int64).alias("place"),
        pl.col("row").cast(pl.Int64),
    )


def question_and_answer(extra: pl.Series) -> tuple[list[str | None], list[str | None]]:
    """Question and answer from the sources' own columns (JSON objects); None for a row without such a pair."""
    questions: list[str | None] = []
    answers: list[str | None] = []
    for text in extra:
        question, answer = _qa_of(text)
        questions.append(question)
        answers.append(answer)
    return questions, answers


def _qa_of(text: str | None) -> tuple[str | None, str | None]:
    lowered = {name.lower(): value for name, value in own_columns(text).items()}
    for question_name, answer_name in QA_COLUMNS:
        question, answer = _text_of(lowered.get(question_name)), _text_of(lowered.get(answer_name))
        if question and answer:
            return question, answer
    return None, None


def _text_of(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _no_columns() -> list[pl.Expr]:
    names = ("kind", "url", "synthetic", "caption", "caption_lang", "question", "answer")
    numbers = ("start_s", "end_s", "speech_ratio", "silence_ratio", "place", "row")
    others = [
        pl.lit(None, pl.List(pl.String)).alias("exts"),
        pl.lit(None, pl.Boolean).alias("is_told"),
        pl.lit(None, FURTHER_CAPTIONS).alias("further_captions"),
    ]
    return [
        *(pl.lit(None, pl.String).alias(name) for name in names),
        *(pl.lit(None, pl.Int64).alias(name) for name in numbers),
        *others,
    ]


def has_image(frame: pl.DataFrame) -> np.ndarray:
    """Which samples are stored pictures, bool (n,); clips do not count."""
    return frame.select((pl.col("kind") == "image") & (pl.col("exts").list.len() > 0)).to_series().to_numpy()
