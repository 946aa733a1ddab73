"""Interleaved documents: several texts and pictures in order. Used by every stage that a document passes through.

The text of a document has a marker where each picture stands, as in LLaVA, OpenFlamingo and MMC4's tools: `A cat.
<image> A dog. <image>`. The URLs of the pictures stand beside it in the same order, and so do the stored pictures:
`000.jpg` is the picture of the first marker.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl
import pyarrow as pa

from mmdata.samples import MEDIA, own_columns, sample_uid

DOCUMENT = "document"
"""Kind of the samples; their signature is `document+text`."""

PICTURED = ("image", "video", DOCUMENT)
"""Kinds whose samples are scored by what their pictures show."""

MARKER = "<image>"
"""Stands for a picture in the text of a document. The source's own text never contains it, see `document_text`."""

PICTURE_URLS = "picture_urls"
"""Key in `extra` of the canonical URLs of the pictures, in the order of the markers."""

PICTURE = pa.struct(
    [
        *(("status", pa.string()), ("error", pa.string()), ("detail", pa.string()), ("attempts", pa.int32())),
        *(("next_retry_at", pa.timestamp("ms", "UTC")), ("sha256", pa.string()), ("bytes", pa.int64())),
        *(("mime", pa.string()), ("original_width", pa.int32()), ("original_height", pa.int32())),
        *(("width", pa.int32()), ("height", pa.int32()), ("faces", pa.int32())),
    ]
)
"""What was fetched for one picture of a document; the fields are those of MEDIA."""

DOCUMENT_MEDIA = pa.schema([*MEDIA, pa.field("pictures", pa.list_(PICTURE))])
"""The media table of a slice of documents: MEDIA, and a PICTURE for each marker. The stored members are named by the
place of their picture: `002.jpg` is the third. A picture that was not fetched has no member."""


def document_text(texts: Sequence[str]) -> str:
    """One text with a MARKER between any two of `texts`; a marker that a text itself contains becomes a space."""
    return f" {MARKER} ".join(" ".join(text.replace(MARKER, " ").split()) for text in texts).strip()


def texts_between(text: str) -> list[str]:
    """The texts before, between and after the n pictures of a document: n + 1, which may be empty."""
    return [piece.strip() for piece in text.split(MARKER)]


def with_pictures(text: str, places: Collection[int]) -> str:
    """The text with the markers of these pictures only; around a marker that goes, the texts become one."""
    first, *rest = texts_between(text)
    kept = [first]
    for place, following in enumerate(rest):
        if place in places:
            kept.append(following)
        else:
            kept[-1] = f"{kept[-1]} {following}".strip()
    return document_text(kept)


def neighbouring_texts(texts: Sequence[str], place: int) -> list[str]:
    """The nearest text before a picture and the nearest after it, without those that are not there.

    Args:
        texts: as `texts_between` gives them.
        place: of the picture, from 0.
    """
    before = next((text for text in reversed(texts[: place + 1]) if text), None)
    after = next((text for text in texts[place + 1 :] if text), None)
    return [text for text in (before, after) if text is not None]


def with_words(samples: pl.DataFrame) -> pl.DataFrame:
    """Samples whose `caption` has no markers; the column `marked` keeps the text of documents as it was."""
    return samples.with_columns(words_of(), marked=pl.when(pl.col("kind") == DOCUMENT).then("caption"))


def words_of() -> pl.Expr:
    """The column `caption`, of documents (column `kind`) without markers: what is read as language."""
    spoken = pl.col("caption").str.replace_all(MARKER, " ", literal=True).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(pl.col("kind") == DOCUMENT).then(spoken).otherwise(pl.col("caption")).alias("caption")


def picture_urls(extra: str | None) -> list[str]:
    """The URLs in the column `extra` of a document's row; empty if there are none."""
    urls = own_columns(extra).get(PICTURE_URLS)
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def document_uid(urls: Sequence[str], text: str) -> str:
    """The identity of a document: a hash of its pictures' canonical URLs and of its text, both in their order."""
    return sample_uid("\x1e".join(urls), text)


def member_place(ext: str) -> int:
    """The place of a stored picture, from its extension: 2 of `002.jpg`."""
    return int(ext.partition(".")[0])
