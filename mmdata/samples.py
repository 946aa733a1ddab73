"""The sample: its identity, its tables' schemas, its modality signature and its key in a shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import polars as pl
import pyarrow as pa

ROWS = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # image | video | audio | text
        pa.field("url", pa.string()),  # canonical
        pa.field("caption", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("lang", pa.string()),  # as the source says; the detected one is a feature
        pa.field("expected_sha256", pa.string()),
        pa.field("problem", pa.string()),  # why the row cannot be used; null: it can
        pa.field("copies", pa.int32(), nullable=False),  # identical source rows that this one stands for
        pa.field("row", pa.int64(), nullable=False),  # 0-based number of the first of them in its file
        pa.field("extra", pa.string()),  # the source's own columns, a JSON object
    ]
)
"""What a source says, one row a uid. Made by mmdata.sources."""

MEMBER = pa.struct([("ext", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
"""A stored member: as MEDIA's own ext, offset and length."""

MEDIA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # see STATUSES
        pa.field("error", pa.string()),  # a short class, such as `http_404`: counted as the reason
        pa.field("detail", pa.string()),  # the full message
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("next_retry_at", pa.timestamp("ms", "UTC")),  # null: never again
        pa.field("sha256", pa.string()),  # of the bytes as fetched
        pa.field("bytes", pa.int64()),  # as fetched
        pa.field("mime", pa.string()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("ext", pa.string()),  # of the first stored member: jpg, 000.jpg (a clip's first frame), flac
        pa.field("offset", pa.int64()),  # of the member's first data byte in the slice's tar
        pa.field("length", pa.int64()),
        pa.field("further", pa.list_(MEMBER)),  # the other members: 001.jpg …, flac, mp4; null: there are none
        pa.field("frame_times_s", pa.list_(pa.float64())),  # of the frames, in the file that was cut
        pa.field("audio_s", pa.float64()),  # seconds of the stored sound; null: none is stored
        pa.field("faces", pa.int32()),  # counted before blurring, in the frame with most; null: not looked for
        pa.field("synthetic", pa.string()),  # modality that a machine made, such as `audio`; null: none
        pa.field("fetched_at", pa.timestamp("ms", "UTC")),
        pa.field("etag", pa.string()),
    ]
)
"""What the web answered, one row a uid. Made by mmdata.download; the bytes lie in the slice's tar."""

STATUSES = ("success", "failed_to_download", "failed_to_resize", "refused", "pending")

FEATURES = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("clip_score", pa.float32()),  # cosine in [-1, 1], of a clip the mean over its frames; null: no picture
        pa.field("clip_score_max", pa.float32()),  # of a clip's best frame
        pa.field("frame_scores", pa.list_(pa.float32())),  # of each frame of a clip
        pa.field("embedding", pa.list_(pa.float16())),  # unit length, of the image or the mean over the frames
        pa.field("phash", pa.uint64()),
        pa.field("lang", pa.string()),
        pa.field("lang_prob", pa.float32()),
        pa.field("n_words", pa.int32()),
        pa.field("n_chars", pa.int32()),
        pa.field("aspect", pa.float32()),  # longer side over shorter side
        pa.field("sharpness", pa.float32()),  # variance of the Laplacian on the stored image's grey levels
        pa.field("black_ratio", pa.float32()),  # share of a clip's frames that are black
        pa.field("frozen_ratio", pa.float32()),  # share of a clip's frames that equal the one before
        pa.field("faces", pa.int32()),  # in the picture, or in the frame with most
        pa.field("audio_rms_db", pa.float32()),  # loudness, dB of full scale
        pa.field("silence_ratio", pa.float32()),  # share of the sound that is silent
        pa.field("speech_ratio", pa.float32()),  # share of the sound that is speech
        pa.field("speech_overlap", pa.float32()),  # share of the captioned time in which somebody speaks
        pa.field("audio_score", pa.float32()),  # cosine of sound and caption by score.audio_model
        pa.field("transcript", pa.string()),  # by score.transcriber
        pa.field("problem", pa.string()),  # why a fetched sample could not be scored
        pa.field("media_sha256", pa.string()),  # of the fetched bytes that were scored; null: none were
    ]
)
"""What was measured, one row a uid. Made by mmdata.score; the table's metadata names the scorer."""

SELECTION = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("copies", pa.int32(), nullable=False),  # source rows that this uid stands for, over all parts
        pa.field("signature", pa.string(), nullable=False),
        pa.field("clip_score", pa.float32()),
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),  # the first rule that dropped it, such as `filter:clip_score`; null if kept
        pa.field("duplicate_of", pa.string()),  # the uid that stays instead
        pa.field("cluster", pa.int32()),  # k-means cluster of the embedding; null without one
        pa.field("concept", pa.string()),  # what its rarity is counted by
        pa.field("rate", pa.float64(), nullable=False),  # keep probability after balancing
        pa.field("repeats", pa.int32(), nullable=False),  # times it stands in the release; 0 if dropped
        pa.field("split", pa.string()),  # train | validation; null if dropped
    ]
)
"""What was decided, one row a uid. Made by mmdata.select."""

INDEX = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # in the shard: uid, or uid_r01 for a copy
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),  # of the sample's first tar header in the shard
        pa.field("length", pa.int64(), nullable=False),  # of the sample's members, headers and padding included
        pa.field("signature", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),  # 0 for the first
        pa.field("repeats", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),  # estimate: 4/3 a word; CJK: one a character
        pa.field("pixels", pa.int64(), nullable=False),  # of all frames together
        pa.field("frames", pa.int32(), nullable=False),  # 0: no clip
        pa.field("seconds", pa.float32()),  # of a clip or of sound; null: neither
        pa.field("augment", pa.uint64(), nullable=False),  # seed that a copy is varied by; 0: as it is
        pa.field("synthetic", pa.string()),  # modality that a machine made; null: none
        pa.field("clip_score", pa.float32()),
        pa.field("cluster", pa.int32()),
        pa.field("concept", pa.string()),
    ]
)
"""Where each sample of a release lies, in shard order: shard, then offset. Made by mmdata.shards."""


def sample_uid(url: str | None, caption: str | None, start_s: float | None = None, end_s: float | None = None) -> str:
    """The sample's identity: a 128-bit BLAKE2b of canonical URL, clip times and caption, as 32 hex digits.

    Args:
        url: already canonical (see `canonical_url`); None for text samples.
        start_s, end_s: the clip's bounds in seconds, to the millisecond; None for a whole file.
    """
    times = "" if start_s is None or end_s is None else f"{start_s:.3f}-{end_s:.3f}"
    text = "\x1f".join((url or "", times, caption or ""))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def modality_signature(kind: str, has_caption: bool, has_audio: bool = False) -> str:
    """The sorted set of what a sample holds, joined by `+`: `image+text`, `audio+text+video`, `text`.

    Args:
        kind: image, video, audio or text.
        has_audio: a video clip's own sound is stored with it.
    """
    held = {kind}
    if has_caption:
        held.add("text")
    if has_audio:
        held.add("audio")
    return "+".join(sorted(held))


def sample_key(uid: str, copy: int = 0) -> str:
    """The key in a shard: the uid, and for the further copies `<uid>_r01`, `<uid>_r02`, …"""
    return uid if copy == 0 else f"{uid}_r{copy:02d}"


def key_uid(key: str) -> str:
    """The uid of a key, copy or not."""
    return key.partition("_r")[0]


def caption_or_transcript() -> pl.Expr:
    """A sample's text: its caption, or where the source gives none what was heard in it (columns of those names)."""
    return pl.coalesce(pl.when(pl.col("caption").str.len_bytes() > 0).then(pl.col("caption")), pl.col("transcript"))


def estimate_tokens(captions: pl.Expr) -> pl.Expr:
    """Tokens of a caption, estimated without a tokenizer: 4/3 a word, and one for each CJK character. int32."""
    cjk = captions.str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
    words = captions.str.count_matches(r"[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]+")
    return (cjk + (words * 4 + 2) // 3).fill_null(0).cast(pl.Int32)


def draws(uids: pl.Series, seed: int, stage: str) -> pl.Series:
    """A uniform number in [0, 1) for each uid: a pure function of (seed, stage, uid), whatever the order.

    SplitMix64's finaliser over the uid's own 128 bits and a key made of seed and stage.

    Args:
        uids: strings of 32 hex digits.

    Returns:
        float64, as long as `uids`, each a multiple of 2^-53.

    Raises:
        ValueError: a uid is not 32 hex digits.
    """
    return pl.Series("draw", unit_interval(hash64(uids, seed, stage)))


def hash64(uids: pl.Series, seed: int, stage: str) -> np.ndarray:
    """The 64 bits under `draws`, as uint64: for bucketing and for templates picked by hash."""
    return hash_words(*uid_words(uids), seed, stage)


def hash_words(high: np.ndarray, low: np.ndarray, seed: int, stage: str) -> np.ndarray:
    """`hash64` of uids that are already two words (see `uid_words`)."""
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


def empty(schema: pa.Schema) -> pa.Table:
    """A table of no rows."""
    return schema.empty_table()


def table_of(rows: Iterable[dict], schema: pa.Schema) -> pa.Table:
    """A table from dicts, sorted by uid, absent keys null."""
    return pa.Table.from_pylist(list(rows), schema=schema).sort_by("uid")
