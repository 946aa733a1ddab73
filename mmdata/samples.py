"""The sample: its identity, its tables' schemas, its modality signature and its key in a shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa


class Column(NamedTuple):
    """A column of a table, with a description for people who read the table."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True


def _schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, column.type, column.nullable) for column in columns])


_ROWS_COLUMNS = (
    Column("uid", pa.string(), "Hash of canonical URL, clip times and caption: 32 hex digits.", nullable=False),
    Column("source", pa.string(), "Name of the source in corpus.yaml.", nullable=False),
    Column("part", pa.string(), "Name of the part of a source file that the row was read from.", nullable=False),
    Column(
        "kind", pa.string(), "image, video, audio, document (several pictures), or text (no medium).", nullable=False
    ),
    Column("url", pa.string(), "Canonical URL of the medium, or of a document's page; null for text samples."),
    Column("caption", pa.string(), "Text that the source gives, in one line."),
    Column("start_s", pa.float64(), "Start of the clip in its video or sound file, in seconds; null for a whole file."),
    Column("end_s", pa.float64(), "End of the clip in its video or sound file, in seconds; null for a whole file."),
    Column("lang", pa.string(), "Language as the source names it; the detected language is a column of the features."),
    Column("expected_sha256", pa.string(), "SHA-256 in hex that the fetched file must have."),
    Column("problem", pa.string(), "Why the row cannot be used; null if it can be used."),
    Column("copies", pa.int32(), "Number of identical source rows that became this row.", nullable=False),
    Column("row", pa.int64(), "Number of the first of these source rows in its file, counted from 0.", nullable=False),
    Column("extra", pa.string(), "The other columns of the source row that are kept, as a JSON object."),
)
EXPECTED_MD5 = "expected_md5"
"""Key in `extra` of the MD5 in hex that the fetched file must have."""

ROWS = _schema(_ROWS_COLUMNS)
"""What the source says about each sample, one row per uid. Written by mmdata.sources."""

MEMBER = pa.struct([("ext", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
"""A further stored member of a sample; the first one is in the columns ext, offset and length of MEDIA."""

_MEDIA_COLUMNS = (
    Column("uid", pa.string(), "Identity of the sample, as in the rows table.", nullable=False),
    Column("status", pa.string(), "success, failed_to_download, failed_to_resize, refused or pending.", nullable=False),
    Column("error", pa.string(), "Short class of the failure, such as `http_404`; failures are counted by it."),
    Column("detail", pa.string(), "Full message of the failure."),
    Column("attempts", pa.int32(), "How many times the medium has been requested.", nullable=False),
    Column("next_retry_at", pa.timestamp("ms", "UTC"), "When the medium is requested again; null: never."),
    Column("sha256", pa.string(), "SHA-256 of the bytes as they were fetched, in hex."),
    Column("bytes", pa.int64(), "Size of the file as it was fetched, in bytes."),
    Column("mime", pa.string(), "Media type of the file as it was fetched, such as `image/jpeg`."),
    Column("original_width", pa.int32(), "Width of the picture as it was fetched, in pixels."),
    Column("original_height", pa.int32(), "Height of the picture as it was fetched, in pixels."),
    Column("width", pa.int32(), "Width of the stored picture or frames, in pixels."),
    Column("height", pa.int32(), "Height of the stored picture or frames, in pixels."),
    Column("duration_s", pa.float64(), "Length of the clip or sound, in seconds."),
    Column("fps", pa.float64(), "Frames a second of the video."),
    Column("ext", pa.string(), "First stored member: jpg, 000.jpg (first frame of a clip) or flac."),
    Column("offset", pa.int64(), "Position of the first member's data in the tar of the slice, in bytes."),
    Column("length", pa.int64(), "Length of the first member's data, in bytes."),
    Column("further", pa.list_(MEMBER), "The other stored members: 001.jpg, …, flac, mp4."),
    Column("frame_times_s", pa.list_(pa.float64()), "Seconds of the stored frames in the original file."),
    Column("audio_s", pa.float64(), "Length of the stored sound, in seconds; null: no sound is stored."),
    Column("faces", pa.int32(), "Faces before blurring, in the frame with most; null: not looked for."),
    Column("synthetic", pa.string(), "Modality that a machine made, such as `audio`; null: none."),
    Column("fetched_at", pa.timestamp("ms", "UTC"), "When the medium was fetched."),
    Column("etag", pa.string(), "ETag that the server sent with the file."),
)
MEDIA = _schema(_MEDIA_COLUMNS)
"""What was fetched, one row per uid. Written by mmdata.download; the bytes are in the tar of the slice."""

STATUSES = ("success", "failed_to_download", "failed_to_resize", "refused", "pending")
"""The values of the column `status` of MEDIA."""

_FEATURES_COLUMNS = (
    Column("uid", pa.string(), "Identity of the sample, as in the rows table.", nullable=False),
    Column(
        "clip_score", pa.float32(), "Cosine of picture and caption; of a clip or document the mean over its pictures."
    ),
    Column("clip_score_max", pa.float32(), "Best of the cosines in `frame_scores`."),
    Column(
        "frame_scores",
        pa.list_(pa.float32()),
        "Cosine of the caption and each frame of the clip, or of a document's pictures.",
    ),
    Column("embedding", pa.list_(pa.float16()), "Unit vector of the picture, or mean over the frames or pictures."),
    Column("text_embedding", pa.list_(pa.float16()), "Unit vector of the caption; null where there is no clip_score."),
    Column("phash", pa.uint64(), "Perceptual hash of the picture, 64 bits; similar pictures differ in few bits."),
    Column("lang", pa.string(), "Language detected in the text."),
    Column("lang_prob", pa.float32(), "Probability of the detected language, in [0, 1]."),
    Column("n_words", pa.int32(), "Number of words in the text."),
    Column("n_chars", pa.int32(), "Number of characters in the text."),
    Column("aspect", pa.float32(), "Longer side of the picture divided by its shorter side."),
    Column("sharpness", pa.float32(), "Variance of the Laplacian of the picture; low if blurred."),
    Column("black_ratio", pa.float32(), "Share of the frames of the clip that are black."),
    Column("frozen_ratio", pa.float32(), "Share of the frames of the clip that are the same as the frame before."),
    Column("faces", pa.int32(), "Number of faces in the picture, or in the frame with the most."),
    Column("audio_rms_db", pa.float32(), "Loudness of the sound (RMS), in dB of full scale."),
    Column("silence_ratio", pa.float32(), "Share of the sound that is silent."),
    Column("speech_ratio", pa.float32(), "Share of the sound in which somebody speaks."),
    Column("speech_overlap", pa.float32(), "Share of the captioned time in which somebody speaks."),
    Column("audio_score", pa.float32(), "Cosine of sound and caption by the model in `score.audio_model`."),
    Column("transcript", pa.string(), "Text heard in the sound by the model in `score.transcriber`."),
    Column("problem", pa.string(), "Why a fetched sample could not be scored; null: it was scored."),
    Column("media_sha256", pa.string(), "SHA-256 of the file that was scored; null: there was none."),
)
FEATURES = _schema(_FEATURES_COLUMNS)
"""What was measured, one row per uid. Written by mmdata.score; the metadata of the table names the scorer."""

SCORE_PREFIX = "score_"
"""Of the names of further columns, float32, that hold the scores which section `score` turns on: `score_nsfw`."""

_SELECTION_COLUMNS = (
    Column("uid", pa.string(), "Identity of the sample, as in the rows table.", nullable=False),
    Column("part", pa.string(), "Name of the part that holds the sample.", nullable=False),
    Column("slice", pa.string(), "Name of the slice of the part that holds the sample.", nullable=False),
    Column("copies", pa.int32(), "How many identical source rows the uid replaces, over all parts.", nullable=False),
    Column("signature", pa.string(), "Sorted modalities, such as `image+text`.", nullable=False),
    Column("clip_score", pa.float32(), "Cosine of picture and caption, as in the features table."),
    Column("keep", pa.bool_(), "Whether the sample is in the release.", nullable=False),
    Column("reason", pa.string(), "First rule that dropped the sample, such as `filter:clip_score`."),
    Column("duplicate_of", pa.string(), "uid of the sample that is kept in place of this duplicate."),
    Column("cluster", pa.int32(), "k-means cluster of the embedding; null: no embedding."),
    Column("concept", pa.string(), "Concept, domain or other label by which the rarity of the sample is counted."),
    Column("rate", pa.float64(), "Probability that balancing keeps the sample, in [0, 1].", nullable=False),
    Column("repeats", pa.int32(), "How many times the sample is in the release; 0 if it is dropped.", nullable=False),
    Column("split", pa.string(), "train or validation; null if the sample is dropped."),
)
SELECTION = _schema(_SELECTION_COLUMNS)
"""What was decided, one row per uid. Written by mmdata.select."""

_INDEX_COLUMNS = (
    Column("uid", pa.string(), "Identity of the sample, as in the rows table.", nullable=False),
    Column("key", pa.string(), "The uid; with `_r01`, `_r02`, … for a further copy.", nullable=False),
    Column("shard", pa.string(), "File name of the shard that holds the sample.", nullable=False),
    Column("offset", pa.int64(), "Position of the sample's first tar header in the shard, in bytes.", nullable=False),
    Column("length", pa.int64(), "Bytes of its members, with headers and padding.", nullable=False),
    Column("signature", pa.string(), "Sorted modalities, such as `image+text`.", nullable=False),
    Column("split", pa.string(), "train or validation.", nullable=False),
    Column("copy", pa.int32(), "Number of this copy; 0 for the first.", nullable=False),
    Column("repeats", pa.int32(), "How many times the sample is in the release.", nullable=False),
    Column("tokens", pa.int32(), "Estimated number of tokens of the text.", nullable=False),
    Column(
        "pixels", pa.int64(), "Number of pixels in the picture, or in all frames or pictures together.", nullable=False
    ),
    Column("frames", pa.int32(), "Number of frames, or of a document's pictures; 0: neither.", nullable=False),
    Column("seconds", pa.float32(), "Length of the clip or sound, in seconds; null: neither."),
    Column("augment", pa.uint64(), "Seed by which a copy is varied; 0: it is not varied.", nullable=False),
    Column("synthetic", pa.string(), "Modality that a machine made, such as `audio`; null: none."),
    Column("clip_score", pa.float32(), "Cosine of picture and caption, as in the features table."),
    Column("cluster", pa.int32(), "k-means cluster of the embedding; null: no embedding."),
    Column("concept", pa.string(), "Concept, domain or other label by which the rarity of the sample is counted."),
)
INDEX = _schema(_INDEX_COLUMNS)
"""Position of each sample of a release, ordered by shard, then offset. Written by mmdata.shards."""

GENERATED_TOKENS = Column(
    "generated_tokens", pa.int32(), "Estimated number of tokens of a generated caption beside the text; 0: none."
)
"""Further column of the index of a release with generated captions."""

COLUMNS: Mapping[str, Sequence[Column]] = {
    "rows": _ROWS_COLUMNS,
    "media": _MEDIA_COLUMNS,
    "features": _FEATURES_COLUMNS,
    "selection": _SELECTION_COLUMNS,
    "shards": _INDEX_COLUMNS,
}
"""Stage that writes the table -> its columns."""


def sample_uid(url: str | None, caption: str | None, start_s: float | None = None, end_s: float | None = None) -> str:
    """The sample's identity: a 128-bit BLAKE2b of canonical URL, clip times and caption, as 32 hex digits.

    Args:
        url: already canonical (see `canonical_url`); None for text samples.
        start_s, end_s: the clip's bounds in seconds, to the millisecond; None for a whole file.
    """
    times = "" if start_s is None or end_s is None else f"{start_s:.3f}-{end_s:.3f}"
    text = "\x1f".join((url or "", times, caption or ""))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def own_columns(extra: str | None) -> dict[str, Any]:
    """The columns in the column `extra` of a row; empty if the text is no JSON object, or is nested too deeply."""
    try:
        columns = json.loads(extra) if extra else {}
    except (ValueError, RecursionError):
        return {}
    return columns if isinstance(columns, dict) else {}


def modality_signature(kind: str, has_caption: bool, has_audio: bool = False) -> str:
    """The modalities of a sample, sorted and joined by `+`: `image+text`, `audio+text+video`, `text`."""
    return "+".join(sorted({kind} | ({"text"} if has_caption else set()) | ({"audio"} if has_audio else set())))


def sample_key(uid: str, copy: int = 0) -> str:
    """The key of a sample in a shard: its uid; of further copies `<uid>_r01`, `<uid>_r02` and so on."""
    return uid if copy == 0 else f"{uid}_r{copy:02d}"


def key_uid(key: str) -> str:
    """The uid in the key of a sample or of one of its copies."""
    return key.partition("_r")[0]


def caption_or_transcript() -> pl.Expr:
    """The text of a sample: column `caption`, or column `transcript` if the caption is empty or null."""
    return pl.coalesce(pl.when(pl.col("caption").str.len_bytes() > 0).then(pl.col("caption")), pl.col("transcript"))


_CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
_WORD = r"[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]+"


def count_words(captions: pl.Expr) -> pl.Expr:
    """Count words, int32: each CJK character is one, and each run of other characters between spaces."""
    return (captions.str.count_matches(_CJK) + captions.str.count_matches(_WORD)).cast(pl.Int32)


def estimate_tokens(captions: pl.Expr) -> pl.Expr:
    """Tokens of a caption, estimated without a tokenizer: 4/3 a word, and one for each CJK character. int32."""
    cjk, words = captions.str.count_matches(_CJK), captions.str.count_matches(_WORD)
    return (cjk + (words * 4 + 2) // 3).fill_null(0).cast(pl.Int32)


_SCORE_COLUMNS = {
    "punsafe": ("punsafe", "nsfw_score_opennsfw2", "NSFW"),  # of LAION-5B, COYO-700M and LAION-400M
    "pwatermark": ("pwatermark", "watermark_score"),  # of LAION-5B and COYO-700M
}
SOURCE_SCORES = tuple(_SCORE_COLUMNS)
"""The scores of the source itself that a rule of the selection reads."""

OWN_SCORES = tuple(column for columns in _SCORE_COLUMNS.values() for column in columns)
"""The columns that hold them."""

_SCORE_OF_LABEL = {"UNLIKELY": 0.0, "UNSURE": 0.5, "NSFW": 1.0}


def source_score(name: str) -> pl.Expr:
    """The probability that the source itself gives (`punsafe` or `pwatermark`), from column `extra`: float64.

    Null where the source gives none. It may be there under the name that LAION-5B, COYO-700M or LAION-400M has for it;
    the labels of LAION-400M become 0 (UNLIKELY), 0.5 (UNSURE) and 1 (NSFW).
    """
    assert name in SOURCE_SCORES
    return source_number(name)


def source_number(name: str) -> pl.Expr:
    """The number in a source's own column, from column `extra`: float64; null where a row has none.

    `punsafe` and `pwatermark` are found under the names that `source_score` knows.
    """
    names = _SCORE_COLUMNS.get(name, (name,))
    return pl.col("extra").map_batches(lambda extra: _scores_in(extra, names), return_dtype=pl.Float64)


def _scores_in(extra: pl.Series, names: Sequence[str]) -> pl.Series:
    """The first score of each row. A name that no row has costs a search for it, and no parsing of the JSON."""
    extra = extra.cast(pl.String)
    texts = pl.Series(extra.name, [None] * len(extra), pl.String)
    for name in names:
        if extra.str.contains(f'"{name}"', literal=True).any():
            texts = pl.select(pl.coalesce(texts, extra.str.json_path_match(_json_path(name)))).to_series()
    scores = texts.cast(pl.Float64, strict=False).fill_nan(None)
    if scores.null_count() > texts.null_count():
        labels = texts.replace_strict(_SCORE_OF_LABEL, default=None, return_dtype=pl.Float64)
        scores = pl.select(pl.coalesce(scores, labels)).to_series()
    return scores


def _json_path(name: str) -> str:
    """The path of a key at the top of a JSON object."""
    return f"$.{name}" if name.isidentifier() else f"$[{json.dumps(name, ensure_ascii=False)}]"


def draws(uids: pl.Series, seed: int, stage: str) -> pl.Series:
    """A uniform random number in [0, 1) for each uid, which depends on seed, stage and uid only, not on the order.

    It is the finaliser of SplitMix64 over the 128 bits of the uid and a key made of seed and stage: float64, each a
    multiple of 2^-53. Raises as `uid_words` does.
    """
    return pl.Series("draw", unit_interval(hash64(uids, seed, stage)))


def hash64(uids: pl.Series, seed: int, stage: str) -> np.ndarray:
    """The 64 bits that `draws` turns into numbers, as uint64 (n,); also used to pick buckets and templates."""
    return hash_words(*uid_words(uids), seed, stage)


def hash_words(high: np.ndarray, low: np.ndarray, seed: int, stage: str) -> np.ndarray:
    """`hash64` of uids that are given as two words each (see `uid_words`)."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}\x1f{stage}".encode(), digest_size=8).digest(), "little")
    return _mix(_mix(low ^ np.uint64(key)) ^ high)


def unit_interval(hashes: np.ndarray) -> np.ndarray:
    """uint64 hashes as float64 draws in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(bits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))


def uid_words(uids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Each uid as two uint64 words (high, low), which sort as the uids do, in half the memory.

    Raises:
        ValueError: a uid is not 32 hex digits.
    """
    if uids.null_count() or not bool((uids.str.len_bytes() == 32).all()):
        raise ValueError("every uid must be 32 hex digits (see sample_uid)")
    try:
        words = [uids.str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) for at in (0, 16)]
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"every uid must be 32 hex digits (see sample_uid): {error}") from None
    return words[0].to_numpy(), words[1].to_numpy()


def table_of(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table from dicts, sorted by uid; missing keys become null."""
    return pa.Table.from_pylist(list(rows), schema=schema).sort_by("uid")
