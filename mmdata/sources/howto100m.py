"""HowTo100M: turns an index of videos (HowTo100M_v1.csv) and their timed captions into clips."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mmdata.config import Clips, Source
from mmdata.samples import own_columns, sample_uid
from mmdata.sources.batches import Batch
from mmdata.sources.captions import NO_CAPTIONS, CaptionSource
from mmdata.sources.problems import MAX_CAPTION_CHARS, place_uid, problem_of
from mmdata.sources.row import Row
from mmdata.sources.timed import Clip, clips_of

WATCH_URL = "https://www.youtube.com/watch?v={video_id}"
"""The URL that identifies a video, even if it is fetched from another place."""

VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Ids become part of URLs and file names, so they must not contain a slash or other special characters."""

_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def clip_rows(
    batches: Iterable[Batch],
    source: Source,
    file: str,
    settings: Clips,
    captions: CaptionSource,
    caption_counts: Counter[str],
) -> Iterator[Row]:
    """One row per clip; a video without clips gives one row with a problem.

    `extra` holds the columns of the index, and `captions`: the [start_s, end_s, text] that the clip was merged from.
    The counts of bad captions (see `clips_of`) are added to `caption_counts`. Raises DataError if the file of captions
    is damaged.
    """
    for batch in batches:
        ids = [None if video_id is None else video_id.strip() for video_id in batch.urls]
        valid_ids = [video_id for video_id in ids if video_id and VIDEO_ID.fullmatch(video_id)]
        captions_by_id = captions.read(list(dict.fromkeys(valid_ids)))
        for at, video_id in enumerate(ids):
            number, extra, problem = batch.first + at, batch.extras[at], batch.problems[at]
            if problem is None and (video_id is None or video_id not in captions_by_id):
                problem = "bad_video_id"
            if problem is None and video_id is not None:
                video_captions = captions_by_id[video_id]
                if isinstance(video_captions, str):
                    problem = video_captions
                else:
                    clips, counts = clips_of(video_captions, settings)
                    caption_counts.update(counts)
                    if clips:
                        yield from _rows(clips, video_id, number, extra)
                        continue
                    problem = NO_CAPTIONS
            url = WATCH_URL.format(video_id=video_id) if video_id and VIDEO_ID.fullmatch(video_id) else None
            uid = place_uid(source.name, file, number)
            yield Row(uid, "video", url, None, None, None, None, None, problem, number, extra)


def _rows(clips: Iterable[Clip], video_id: str, number: int, extra: str | None) -> Iterator[Row]:
    url = WATCH_URL.format(video_id=video_id)
    index_columns = own_columns(extra)
    for position, clip in enumerate(clips):
        text, start_s, end_s = clip.text, clip.start_s, clip.end_s
        timed = [[caption.start_s, caption.end_s, caption.text] for caption in clip.captions]
        columns: str | None = _JSON.encode({**index_columns, "captions": timed})
        problem = problem_of(url, text)
        if problem is not None:  # the text is too long to be kept whole
            text, columns = text[:MAX_CAPTION_CHARS], extra
        uid = sample_uid(url, text, start_s, end_s)
        further = position > 0
        yield Row(uid, "video", url, text, start_s, end_s, None, None, problem, number, columns, further)
