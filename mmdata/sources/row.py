"""Turns source rows into rows of the rows table: cleans them, checks them and gives each a uid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from mmdata.config import Source
from mmdata.documents import DOCUMENT
from mmdata.samples import EXPECTED_MD5, sample_uid
from mmdata.sources import problems
from mmdata.sources.batches import Batch
from mmdata.urls import canonical_url

KINDS = {
    "laion": "image",
    "pairs": "image",
    "video": "video",
    "audio": "audio",
    "text": "text",
    "howto100m": "video",
    "documents": DOCUMENT,
}
"""Kind of a source -> kind of its samples."""


class Row(NamedTuple):
    """A row of the rows table, without the columns source, part and copies."""

    uid: str
    kind: str
    url: str | None
    caption: str | None
    start_s: float | None
    end_s: float | None
    lang: str | None
    expected_sha256: str | None
    problem: str | None
    row: int  # number in the file, from 0
    extra: str | None
    further: bool = False  # the row comes from the same source row as the one before, so it must not be counted again


def read_rows(batches: Iterable[Batch], source: Source, file: str) -> Iterator[Row]:
    """The rows of a source, good and bad; a bad row names its problem. `file` is as for `place_uid`."""
    kind = KINDS[source.kind]
    max_chars = problems.MAX_TEXT_CHARS if kind == "text" else problems.MAX_CAPTION_CHARS
    for batch in batches:
        for number, values in enumerate(zip(*batch.columns(), strict=True), batch.first):
            raw_lang, extra, problem = values[2], values[4], values[5]  # `nan` is a language, too (Min Nan)
            given = (None if value is None or problems.is_missing(value) else value for value in values)
            raw_url, raw_caption, _, raw_sha256, _, _, raw_start, raw_end, raw_md5 = given
            url = raw_url.strip() if raw_url else None
            if url and source.url_template:
                url = source.url_template.replace("{url}", quote(url, safe="/"))
            if raw_caption and source.percent_encoded_captions:
                raw_caption = unquote_plus(raw_caption)
            caption = problems.clean_caption(raw_caption) if raw_caption else None
            sha256, md5 = (value.strip().lower() if value else None for value in (raw_sha256, raw_md5))
            start, end = (_time(raw_start), _time(raw_end)) if raw_start or raw_end else (None, None)
            if start is not None and source.clip_s is not None:
                end = round(start + source.clip_s, 3)
            if extra and problems.is_too_nested(extra):
                problem, extra = problem or "malformed_row", None
            problem = problem or problems.problem_of(url, caption, sha256, kind, md5)
            if (raw_start or raw_end) and not _is_span(start, end):
                problem, start, end = problem or "bad_times", None, None
            if problem is None:
                url = None if url is None else canonical_url(url)
                uid = sample_uid(url, caption, start, end)
            else:
                uid = problems.place_uid(source.name, file, number)
                url = url[: problems.MAX_URL_CHARS] if url else None
            caption = caption[:max_chars] if caption else None
            lang = raw_lang.strip() if raw_lang else None
            if md5 and problem is None:
                extra = _with_md5(extra, md5)
            yield Row(uid, kind, url or None, caption, start, end, lang or None, sha256 or None, problem, number, extra)


def _with_md5(extra: str | None, md5: str) -> str:
    """`extra` with the MD5 that the file must have. A column of its own would make every older table stale."""
    member = f'"{EXPECTED_MD5}":"{md5}"}}'
    return f"{extra[:-1]},{member}" if extra and extra != "{}" else "{" + member


def _time(text: str | None) -> float | None:
    seconds = problems.parse_time(text) if text else None
    return None if seconds is None else round(seconds, 3) + 0.0  # -0.0 becomes 0.0, or one clip has two uids


def _is_span(start: float | None, end: float | None) -> bool:
    return start is not None and end is not None and 0 <= start < end <= problems.MAX_TIME_S
