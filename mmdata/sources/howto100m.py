"""HowTo100M: an index of videos (HowTo100M_v1.csv) and their timed captions become clips."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mmdata.config import Clips, Source
from mmdata.samples import sample_uid
from mmdata.sources.batches import Batch
from mmdata.sources.captions import NONE, CaptionSource
from mmdata.sources.problems import place_uid, problem_of
from mmdata.sources.row import Row
from mmdata.sources.timed import Clip, clips_of

WATCH = "https://www.youtube.com/watch?v={video_id}"
"""What identifies a video, wherever it is fetched from."""

VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""An id stands in URLs and in names of files, so it must not say more than a name."""


_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def clip_rows(
    batches: Iterable[Batch], source: Source, file: str, settings: Clips, captions: CaptionSource, told: Counter[str]
) -> Iterator[Row]:
    """A row a clip; a video that gives none has one row with the problem.

    `extra` holds the index's columns and `captions`, the [start_s, end_s, text] that the clip was merged from.

    Args:
        file: see `place_uid`.
        told: gets what was found wrong with captions (see `clips_of`) added.

    Raises:
        DataError: the file of captions is broken.
    """
    for batch in batches:
        ids = [None if video_id is None else video_id.strip() for video_id in batch.urls]
        sound = [video_id for video_id in ids if video_id and VIDEO_ID.fullmatch(video_id)]
        known = captions.read(list(dict.fromkeys(sound)))
        for at, video_id in enumerate(ids):
            number, extra, problem = batch.first + at, batch.extras[at], batch.problems[at]
            if problem is None and (video_id is None or video_id not in known):
                problem = "bad_video_id"
            if problem is None and video_id is not None:
                found = known[video_id]
                if isinstance(found, str):
                    problem = found
                else:
                    clips, wrong = clips_of(found, settings)
                    told.update(wrong)
                    if clips:
                        yield from _rows(clips, video_id, number, extra)
                        continue
                    problem = NONE
            url = WATCH.format(video_id=video_id) if video_id and VIDEO_ID.fullmatch(video_id) else None
            uid = place_uid(source.name, file, number)
            yield Row(uid, "video", url, None, None, None, None, None, problem, number, extra)


def _rows(clips: Iterable[Clip], video_id: str, number: int, extra: str | None) -> Iterator[Row]:
    url = WATCH.format(video_id=video_id)
    own = json.loads(extra) if extra else {}
    for at, clip in enumerate(clips):
        text = clip.text
        told = [[one.start_s, one.end_s, one.text] for one in clip.captions]
        columns = _JSON.encode({**own, "captions": told})
        problem = problem_of(url, text)
        uid = sample_uid(url, text, clip.start_s, clip.end_s)
        yield Row(
            uid, "video", url, text, clip.start_s, clip.end_s, None, None, problem, number, columns, further=at > 0
        )
