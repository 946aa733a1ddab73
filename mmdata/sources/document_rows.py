"""Turns rows of interleaved data sets into rows of the rows table: OBELICS, MMC4, and texts with markers.

Each row is one document: its texts and pictures in their order become one text with markers and a list of URLs, see
`mmdata.documents`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mmdata.config import Source
from mmdata.documents import DOCUMENT, MARKER, PICTURE_URLS, document_text, document_uid
from mmdata.samples import own_columns
from mmdata.sources import problems
from mmdata.sources.batches import Batch
from mmdata.sources.columns import GENERAL_METADATA, PAGE_URL
from mmdata.sources.row import Row
from mmdata.urls import canonical_url

_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


class BadDocument(ValueError):
    """A row that is no document. Its text is the row's problem."""


class Picture(NamedTuple):
    """A picture of a document, by the URL that the source gives."""

    url: str


def document_rows(batches: Iterable[Batch], source: Source, file: str, counts: Counter[str]) -> Iterator[Row]:
    """One row a document; one that cannot be used names its problem.

    A picture whose URL cannot be fetched at all (`data:`, no host, too long) goes, and with it its marker.

    Args:
        file: as for `problems.place_uid`.
        counts: `pictures` and `pictures_without_url` are added to it.
    """
    for batch in batches:
        columns = zip(batch.urls, batch.captions, batch.langs, batch.extras, batch.problems, strict=True)
        for number, (pictures, texts, lang, extra, problem) in enumerate(columns, batch.first):
            if extra and problems.is_too_nested(extra):
                problem, extra = problem or "malformed_row", None  # noqa: PLW2901 - this row cannot be used
            own = own_columns(extra)
            page_url = _page_url(own)
            text, urls = None, list[str]()
            try:
                if problem is not None:
                    raise BadDocument(problem)
                segments = segments_of(_value(pictures), _value(texts))
                text, urls = _text_and_urls(segments, source.max_pictures, counts)
                if (of_text := problems.problem_of(None, text.replace(MARKER, "").strip(), kind="text")) is not None:
                    raise BadDocument(of_text)
            except BadDocument as error:
                text = text[: problems.MAX_TEXT_CHARS] if text else None
                uid = problems.place_uid(source.name, file, number)
                yield Row(uid, DOCUMENT, page_url, text, None, None, lang, None, str(error), number, extra)
                continue
            counts["pictures"] += len(urls)
            columns_and_urls = _JSON.encode({**own, PICTURE_URLS: urls})
            lang = lang.strip() if lang and not problems.is_missing(lang) else None  # noqa: PLW2901 - cleaned
            uid = document_uid(urls, text)
            yield Row(uid, DOCUMENT, page_url, text, None, None, lang, None, None, number, columns_and_urls)


def segments_of(pictures: Any, texts: Any) -> list[str | Picture]:
    """The texts and pictures of a document in their order, from the forms that data sets have.

    - lists of one length, in which each place has a text or a URL and the other list null there (OBELICS, MINT-1T)
    - a list of texts, and for each picture an object with `raw_url` and `matched_text_index` (MMC4): a picture stands
      before the text that it was matched with, as OpenFlamingo reads MMC4
    - one text in which `<image>` marks the places of the pictures, and a list of URLs (LLaVA)

    Raises:
        BadDocument: `unaligned`, `no_pictures` or `malformed_row`.
    """
    if isinstance(pictures, str):
        pictures = [pictures]
    if pictures is None or pictures == []:
        raise BadDocument("no_pictures")
    if not isinstance(pictures, list) or not isinstance(texts, str | list):
        raise BadDocument("no_caption" if texts is None else "malformed_row")
    if isinstance(texts, str):
        pieces, urls = texts.split(MARKER), [_url(url) for url in pictures]
        if len(pieces) != len(urls) + 1:
            raise BadDocument("unaligned")
        return [pieces[0], *(segment for pair in zip(urls, pieces[1:], strict=True) for segment in pair)]
    if all(isinstance(picture, dict) for picture in pictures):
        return _matched(pictures, texts)
    if len(pictures) != len(texts):
        raise BadDocument("unaligned")
    segments: list[str | Picture] = []
    for picture, text in zip(pictures, texts, strict=True):
        if picture is not None and text is not None:
            raise BadDocument("unaligned")
        if picture is not None:
            segments.append(_url(picture))
        elif text is not None:
            segments.append(_said(text))
    return segments


def _matched(pictures: Sequence[dict[str, Any]], texts: Sequence[Any]) -> list[str | Picture]:
    before: dict[int, list[Picture]] = {}
    for picture in pictures:
        index = picture.get("matched_text_index")
        if not isinstance(index, int) or not 0 <= index < len(texts):
            raise BadDocument("unaligned")
        before.setdefault(index, []).append(_url(picture.get("raw_url")))
    return [segment for index, text in enumerate(texts) for segment in (*before.get(index, ()), _said(text))]


def _url(url: Any) -> Picture:
    if not isinstance(url, str):
        raise BadDocument("malformed_row")
    return Picture(url.strip())


def _said(text: Any) -> str:
    if not isinstance(text, str):
        raise BadDocument("malformed_row")
    return text


def _text_and_urls(segments: Sequence[str | Picture], max_pictures: int, counts: Counter[str]) -> tuple[str, list[str]]:
    """The text with markers, and the canonical URLs. Raises BadDocument if there are too many pictures, or none."""
    if sum(isinstance(segment, Picture) for segment in segments) > max_pictures:
        raise BadDocument("too_many_pictures")
    texts, urls, unusable = [""], list[str](), list[str]()
    for segment in segments:
        if isinstance(segment, str):
            texts[-1] = f"{texts[-1]} {_clean(segment)}"
        elif (problem := problems.url_problem(segment.url)) is not None:
            unusable.append(problem)
        else:
            urls.append(canonical_url(segment.url))
            texts.append("")
    counts["pictures_without_url"] += len(unusable)
    if not urls:
        raise BadDocument(unusable[0] if unusable else "no_pictures")
    return document_text(texts), urls


def _clean(text: str) -> str:
    """The text in one line, without markers of its own: control characters go first, as one may stand inside of one."""
    return problems.clean_caption(problems.clean_caption(text).replace(MARKER, " "))


def _value(text: str | None) -> Any:
    """The value of a JSON text. A CSV file, or a Parquet column of texts, has lists as JSON inside of the text."""
    value = None if text is None else json.loads(text)
    if isinstance(value, str) and value.lstrip().startswith("[") and not problems.is_too_nested(value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _page_url(own: dict[str, Any]) -> str | None:
    """The canonical URL of the page that the document was taken from; None if none is given that a page can have."""
    url = own.get(PAGE_URL)
    general = own.get(GENERAL_METADATA)
    if url is None and general is not None:
        general = own_columns(general) if isinstance(general, str) else general
        url = general.get("url") if isinstance(general, dict) else None
    if not isinstance(url, str) or problems.url_problem(url.strip()):
        return None
    return canonical_url(url.strip())
