"""Documents as a release holds them: only with the pictures that were fetched, numbered from 000."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from mmdata.documents import DOCUMENT, PICTURE_URLS, member_place, picture_urls, with_pictures
from mmdata.samples import own_columns
from mmdata.workspace.media_record import Member

_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def present_documents(frame: pl.DataFrame) -> pl.DataFrame:
    """Samples whose documents have lost the markers and URLs of the pictures that were not fetched.

    Args:
        frame: kind, caption, extra, ext, offset, length, further; where there are documents, `pictures` of the media.

    Returns:
        The samples in their order, without `pictures`, and with `document_pixels`: int64, of all pictures of a
        document together; null for other samples.
    """
    if "pictures" not in frame.columns:
        return frame.with_columns(document_pixels=pl.lit(None, pl.Int64))
    rows = frame.select("kind", "caption", "extra", "ext", "offset", "length", "further", "pictures")
    released = [_released(row) if row["kind"] == DOCUMENT and row["ext"] else row for row in rows.to_dicts()]
    columns = {name: pl.Series(name, [row[name] for row in released], frame.schema[name]) for name in _CHANGED}
    pixels = pl.Series([row.get("document_pixels") for row in released], dtype=pl.Int64)
    return frame.with_columns(**columns, document_pixels=pixels).drop("pictures")


_CHANGED = ("caption", "extra", "ext", "further")


def _released(row: dict[str, Any]) -> dict[str, Any]:
    further: list[Member] = row["further"] or []
    places = [member_place(ext) for ext in (row["ext"], *(member["ext"] for member in further)) if ext[0].isdigit()]
    numbers = {place: number for number, place in enumerate(sorted(places))}

    def renumbered(ext: str) -> str:
        return f"{numbers[member_place(ext)]:03d}.{ext.partition('.')[2]}" if ext[0].isdigit() else ext

    urls = picture_urls(row["extra"])
    present = [urls[place] for place in sorted(places) if place < len(urls)]
    pictures = [row["pictures"][place] for place in places]
    return {
        "caption": with_pictures(row["caption"], numbers),
        "extra": _JSON.encode({**own_columns(row["extra"]), PICTURE_URLS: present}),
        "ext": renumbered(row["ext"]),
        "further": [{**member, "ext": renumbered(member["ext"])} for member in further] or None,
        "document_pixels": sum((picture["width"] or 0) * (picture["height"] or 0) for picture in pictures),
    }
