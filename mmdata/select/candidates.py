"""Candidates: the rows of all releasable parts, reduced to the compact columns that decisions need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Balance, Recaption, Select
from mmdata.config.recaption import NO_CAPTIONS
from mmdata.documents import DOCUMENT, words_of
from mmdata.errors import DataError
from mmdata.optout.state import OPT_OUT
from mmdata.samples import caption_or_transcript, estimate_tokens, modality_signature, uid_words
from mmdata.score.sample_text import GENERATED_COLUMNS, with_sample_text
from mmdata.select import domains
from mmdata.select.concept_matcher import ConceptMatcher
from mmdata.select.filters import columns_read, filter_reason
from mmdata.select.scores.named_scores import score_column, score_value
from mmdata.select.scores.score_columns import VectorScores
from mmdata.sources.source_rules import RULE
from mmdata.storage.tables import scan_tables, table_remedy
from mmdata.workspace.layout import PART_STAGES, PartStage, Workspace, redo_remedy

BATCH_ROWS = 250_000
UNUSABLE = "^(opt_out$|(bad_row|rule|media|features):)"
"""Reasons of rows that have nothing to be judged by."""

_ROWS = ("uid", "kind", "url", "start_s", "end_s", "caption", "problem", "copies")
_MEDIA = ("uid", "status", "error", "sha256", "audio_s")
_FEATURES = ("uid", "clip_score", "phash", "transcript", "problem")
_OPTIONAL: dict[PartStage, tuple[str, ...]] = {
    "rows": ("extra",),
    "media": ("original_width", "original_height", "duration_s"),
    "features": (
        *("lang", "lang_prob", "n_words", "n_chars", "aspect", "sharpness", "black_ratio", "frozen_ratio", "faces"),
        *("audio_rms_db", "silence_ratio", "speech_ratio", "speech_overlap", "audio_score"),
    ),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a part, and how many rows it has."""

    part: str
    name: str
    rows: int


def read_candidates(
    workspace: Workspace,
    slices: Sequence[Slice],
    first: int,
    select: Select,
    matcher: ConceptMatcher | None,
    recaption: Recaption = NO_CAPTIONS,
    scores: VectorScores | None = None,
) -> pl.DataFrame:
    """Candidates of some slices, as `compact` makes them, with their slice and row.

    Args:
        first: the number of the first of these slices among all; `place` counts from it.
        scores: the used scores that are computed from vectors.

    Raises:
        DataError: a table is missing, or tables of a slice do not have the same uids; names part and slice.
    """
    of_slices = [scores.of_slice(slice_.part, slice_.name) for slice_ in slices] if scores else []
    vector_columns = [pl.concat(pieces) for pieces in zip(*of_slices, strict=True)]
    wanted = columns_read(select.filter, select.scores) | _weight_columns(select.balance)
    wanted |= {name for expr in _score_columns(select) for name in expr.meta.root_names()}
    if matcher is not None and matcher.concepts.languages:
        wanted |= {"lang"}
    always: dict[PartStage, Sequence[str]] = {"rows": _ROWS, "media": _MEDIA, "features": _FEATURES}
    tables = {}
    for stage in PART_STAGES:
        columns = [*always[stage], *(name for name in _OPTIONAL[stage] if name in wanted)]
        if stage == "features" and recaption.is_on:
            columns += _generated_columns(wanted)
        if stage == "features":  # scores that the stage `features` measured
            computed = {column.name for column in vector_columns}
            columns += sorted(name for name in wanted - computed if name.startswith("score_"))
        paths = [workspace.table(slice_.part, stage, slice_.name) for slice_ in slices]
        tables[stage] = _read(paths, columns)
    sizes = np.array([slice_.rows for slice_ in slices])
    for stage, table in tables.items():
        if not table["uid"].equals(tables["rows"]["uid"]) or len(table) != sizes.sum():
            raise DataError(_misaligned(workspace, slices, stage))
    joined = pl.concat(
        [
            tables["rows"],
            tables["media"].drop("uid"),
            tables["features"].drop("uid").rename({"problem": "features_problem"}),
            pl.DataFrame(vector_columns),
        ],
        how="horizontal",
    )
    places = np.repeat(np.arange(first, first + len(slices), dtype=np.uint32), sizes)
    rows = np.arange(len(joined), dtype=np.uint32) - np.repeat(np.cumsum(sizes) - sizes, sizes).astype(np.uint32)
    return compact(joined, select, matcher, recaption).with_columns(
        pl.Series("place", places, pl.UInt32), pl.Series("row", rows, pl.UInt32)
    )


def compact(
    joined: pl.DataFrame,
    select: Select,
    matcher: ConceptMatcher | None = None,
    recaption: Recaption = NO_CAPTIONS,
) -> pl.DataFrame:
    """Reduce joined rows to the columns that decisions need, about 70 bytes a row.

    Args:
        joined: columns of rows, media and features, the last one's `problem` as `features_problem`.
        recaption: says which samples have a generated caption as their text; the scores and rules are then about it.

    Returns:
        uid_high, uid_low (UInt64), copies (Int32), signature and kind (Categorical), clip_score (Float32), url, file,
        sha256, phash (UInt64: hash of the URL with the clip's times; of the URL alone, where the sample is a clip or
        sound; first 16 digits of the SHA-256; the perceptual hash), words (UInt64: near-duplicates by picture are
        sought among rows with the same number only), reason (Categorical: what drops the row by
        itself, or null), host and domain (UInt64, where balance caps them),
        weight (Int32: tokens or milliseconds, where balance counts those), concepts (List(UInt32), null where no
        list applies; with a `matcher` only), score_<name> (Float32, of each used score: null where it does not apply,
        NaN where a row ought to have it and does not).
    """
    high, low = uid_words(joined["uid"])
    words_of_clips = _words_of_clips(joined.with_columns(caption=caption_or_transcript()))
    joined = with_sample_text(joined, recaption).with_columns(words_of())
    captioned = (pl.col("caption").str.len_bytes() > 0).fill_null(False)
    columns = [
        pl.col("copies").cast(pl.Int32),
        _signature(captioned).alias("signature"),
        pl.col("kind").cast(pl.Categorical),
        pl.col("clip_score").cast(pl.Float32),
        pl.when(pl.col("url").is_not_null()).then(_place_hash()).alias("url"),
        _files(joined).alias("file"),
        pl.col("sha256").str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False),
        pl.col("phash").cast(pl.UInt64),
        words_of_clips,
        _own_reason(select).alias("reason"),
    ]
    columns += domains.columns(select.balance)
    columns += _score_columns(select)
    weight = _weight(select.balance)
    if weight is not None:
        columns.append(weight.cast(pl.Int32).alias("weight"))
    frame = joined.select(columns).insert_column(0, pl.Series("uid_high", high))
    frame.insert_column(1, pl.Series("uid_low", low))
    if matcher is not None:
        languages = joined["lang"] if matcher.concepts.languages else None
        frame.insert_column(len(frame.columns), matcher.match(joined["caption"], languages).rename("concepts"))
    return frame


def _generated_columns(wanted: set[str]) -> list[str]:
    """The columns of generated captions that stand for those of the source's captions."""
    measures = [name for name in ("lang", "lang_prob", "n_words", "n_chars") if name in wanted]
    agreement = ["caption_agreement"] if "caption_agreement" in wanted else []
    return [*GENERATED_COLUMNS, *(f"generated_{name}" for name in measures), *agreement]


def merge_candidates(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """All candidates as one frame sorted by uid, one row a uid. Empties `frames` as it goes, to save memory.

    Where a uid stands in several slices, the first one (by `place`) that has usable media and features wins, else the
    first; its `copies` is the sum.
    """
    columns = frames[0].columns
    pieces = {name: [frame[name] for frame in frames] for name in columns}
    frames.clear()

    def whole(name: str) -> pl.Series:
        return pl.concat(pieces.pop(name), rechunk=True)

    held = {name: whole(name) for name in ("uid_high", "uid_low", "place", "reason")}
    order = _uid_order(held)
    merged = {}
    for name in columns:
        series = held.pop(name) if name in held else whole(name)
        merged[name] = series.gather(order)
    return _collapse(pl.DataFrame(merged))


def _uid_order(held: dict[str, pl.Series]) -> np.ndarray:
    """The order by uid, then usable first, then place. Sorts by half of the uid, then orders the ties."""
    high = held["uid_high"].to_numpy()
    order = np.argsort(high)
    ordered = high[order]
    tied = np.zeros(len(order), bool)
    equal = ordered[1:] == ordered[:-1]
    tied[1:] |= equal
    tied[:-1] |= equal
    at = np.flatnonzero(tied)
    if len(at):
        rows = order[at]
        frame = pl.DataFrame(
            {
                "high": ordered[at],
                "low": held["uid_low"].gather(rows),
                "unusable": held["reason"].gather(rows).cast(pl.String).str.contains(UNUSABLE),
                "place": held["place"].gather(rows),
                "row": rows,
            }
        ).with_columns(pl.col("unusable").fill_null(False))
        order[at] = frame.sort("high", "low", "unusable", "place")["row"].to_numpy()
    return order


def _collapse(frame: pl.DataFrame) -> pl.DataFrame:
    if len(frame) < 2:
        return frame
    high, low = frame["uid_high"].to_numpy(), frame["uid_low"].to_numpy()
    first = np.concatenate([[True], (high[1:] != high[:-1]) | (low[1:] != low[:-1])])
    if first.all():
        return frame
    starts = np.flatnonzero(first)
    copies = np.add.reduceat(frame["copies"].to_numpy(), starts).astype(np.int32)
    return frame.filter(pl.Series(first)).with_columns(pl.Series("copies", copies))


def _own_reason(select: Select) -> pl.Expr:
    upstream = pl.coalesce(
        pl.when((pl.col("problem") == OPT_OUT) | (pl.col("error") == OPT_OUT)).then(pl.lit(OPT_OUT)),
        pl.when(pl.col("problem").is_not_null()).then(pl.format("bad_row:{}", pl.col("problem"))),
        pl.when(pl.col("error").str.starts_with(RULE)).then("error"),
        pl.when(pl.col("status") != "success").then(pl.format("media:{}", pl.coalesce("error", "status"))),
        pl.when(pl.col("features_problem").is_not_null()).then(pl.format("features:{}", pl.col("features_problem"))),
    )
    return pl.coalesce(upstream.cast(pl.Categorical), filter_reason(select.filter, select.scores))


def place_hashes(urls: Sequence[str]) -> np.ndarray:
    """The column `url` of candidates that are whole files at these canonical URLs, uint64."""
    schema = {"url": pl.String, "start_s": pl.Float64, "end_s": pl.Float64}
    frame = pl.DataFrame({"url": urls, "start_s": None, "end_s": None}, schema=schema)
    return frame.select(_place_hash())["url"].to_numpy()


def file_hash(url: str) -> int:
    """A file as 64 bits that no version of Polars changes."""
    return int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "little")


def _place_hash() -> pl.Expr:
    """Hash of the origin of a sample: its file, and for a clip its times, so that clips of the same file differ."""
    return pl.col("url").hash() ^ _times_hash()


def _times_hash() -> pl.Expr:
    # bad rows of older workspaces may have times that no integer holds; they are null here
    milliseconds = [(pl.col(name) * 1000).round().cast(pl.Int64, strict=False) for name in ("start_s", "end_s")]
    start, end = (column.hash(seed) for seed, column in enumerate(milliseconds))
    return start ^ end


def _words_of_clips(joined: pl.DataFrame) -> pl.Series:
    """Hash of the words of a clip that was cut from a file, or of its times if it has no words; 0 for anything else.

    Words are the caption and what a transcriber heard: one caption may stand for a whole film. Clips of one film look
    alike while other things are said and done in them. A clip of a film that was uploaded twice has the same words, or
    the same times.
    """
    is_cut = (joined["kind"] == "video") & joined["start_s"].is_not_null()
    clips = np.flatnonzero(is_cut.fill_null(value=False).to_numpy())
    words = _plain_words(pl.concat_str("caption", "transcript", separator=" ", ignore_nulls=True))
    has_words = words.str.strip_chars(" ").str.len_bytes() > 0
    numbers = np.zeros(len(joined), np.uint64)
    numbers[clips] = joined[clips].select(pl.when(has_words).then(words.hash()).otherwise(_times_hash())).to_series()
    return pl.Series("words", numbers)


def _plain_words(text: pl.Expr) -> pl.Expr:
    """Lower case; runs of other characters than letters, marks and digits become one space; a space at both ends."""
    return pl.format(" {} ", text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ").str.strip_chars(" "))


def _files(joined: pl.DataFrame) -> pl.Series:
    """The file of each clip and sound, by which the split is drawn."""
    urls = joined.select(pl.when(pl.col("kind").is_in(["video", "audio"])).then(pl.col("url")).alias("url"))["url"]
    distinct = urls.drop_nulls().unique()
    hashes = pl.Series([file_hash(url) for url in distinct], dtype=pl.UInt64)
    return urls.replace_strict(distinct, hashes, default=None, return_dtype=pl.UInt64)


def _signature(captioned: pl.Expr) -> pl.Expr:
    """`modality_signature` over columns; a sample holds sound if some is stored with it."""
    heard = pl.col("audio_s").is_not_null()
    branches = [
        pl.when((pl.col("kind") == kind) & (captioned == text) & (heard == audio)).then(
            pl.lit(modality_signature(kind, text, audio), pl.Categorical)
        )
        for kind in ("image", "video", "audio", "text", DOCUMENT)
        for audio in (True, False)
        for text in (True, False)
    ]
    return pl.coalesce(*branches, pl.col("kind").cast(pl.Categorical))


def _score_columns(select: Select) -> list[pl.Expr]:
    return [score_value(name, select.scores).alias(score_column(name)) for name in select.used_scores]


def _weight(balance: Balance) -> pl.Expr | None:
    """Weight of a sample, a whole number, so that sums are exact in any order; None: each counts one."""
    if balance.by == "tokens":
        return estimate_tokens(pl.col("caption"))
    if balance.by == "seconds":
        seconds = pl.coalesce("duration_s", "audio_s").fill_nan(None)
        return (seconds.fill_null(0).clip(0, 2_000_000) * 1000).round()
    return None


def _weight_columns(balance: Balance) -> set[str]:
    weight = _weight(balance)
    return set() if weight is None else set(weight.meta.root_names())


def _read(paths: Sequence[UPath], columns: Sequence[str]) -> pl.DataFrame:
    try:
        return scan_tables(paths, columns).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        missing = next((path for path in paths if not path.exists()), None)
        named = missing or (paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]}")
        raise DataError(f"{named}: cannot be read ({error}). {table_remedy(missing or paths[0])}") from error


def _misaligned(workspace: Workspace, slices: Sequence[Slice], stage: PartStage) -> str:
    for slice_ in slices:
        tables = [workspace.table(slice_.part, which, slice_.name) for which in ("rows", stage)]
        uids = [_read([table], ["uid"])["uid"] for table in tables]
        if not uids[0].equals(uids[1]) or len(uids[0]) != slice_.rows:
            return (
                f"part {slice_.part}, slice {slice_.name}: the {stage} table has {len(uids[1])} uids "
                f"and not the {slice_.rows} of the rows table. {redo_remedy(slice_.part, stage, slice_.name)}"
            )
    return f"parts {slices[0].part} … {slices[-1].part}: the {stage} tables do not have the uids of the rows tables."
