"""The demo's how-to videos, narrations and texts on disk: files of the site, and metadata as their sources give it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.demo.demo_video import Speak, render_video
from mmdata.demo.drawings import Emoji
from mmdata.demo.howto import HowTo, Narration, Note, plan_narrations, plan_notes, plan_videos, timed_captions
from mmdata.media.synthesis import SAMPLE_RATE, flac
from mmdata.stage import Progress

ROWS_A_VIDEO = 100
LEAST_VIDEOS = 9
ROWS_A_NARRATION, LEAST_NARRATIONS = 15, 16
ROWS_A_NOTE, LEAST_NOTES = 10, 16
INDEX_COLUMNS = ("video_id", "category_1", "category_2", "rank", "task_id")

_NARRATIONS = pa.schema([("url", pa.string()), ("transcript", pa.string()), ("language", pa.string())])


def counts(rows: int) -> dict[str, int]:
    """How many videos, narrations and notes a demo of so many pictures has."""
    return {
        "videos": max(LEAST_VIDEOS, rows // ROWS_A_VIDEO),
        "narrations": max(LEAST_NARRATIONS, rows // ROWS_A_NARRATION),
        "notes": max(LEAST_NOTES, rows // ROWS_A_NOTE),
    }


def write_recordings(
    folder: Path, rows: int, emoji: Sequence[Emoji], web: str, speak: Speak, progress: Progress
) -> None:
    """Write inbox/howto/, inbox/sounds/, inbox/texts/ and the files that they point at under site/.

    Args:
        web: what the site's URLs begin with.
    """
    wanted = counts(rows)
    _write_videos(folder, plan_videos(wanted["videos"], emoji), speak, progress)
    _write_narrations(folder, plan_narrations(wanted["narrations"], emoji), web, speak)
    _write_notes(folder / "inbox" / "texts" / "notes.jsonl", plan_notes(wanted["notes"], emoji))


def _write_videos(folder: Path, videos: Sequence[HowTo], speak: Speak, progress: Progress) -> None:
    site, inbox = folder / "site" / "videos", folder / "inbox" / "howto"
    site.mkdir(parents=True)
    inbox.mkdir(parents=True)
    captions: dict[str, Any] = {}
    for number, video in enumerate(videos, 1):
        data, lengths_s = render_video(video, speak)
        captions[video.video_id] = timed_captions(video, lengths_s)
        if video.planted != "missing":
            (site / f"{video.video_id}.mp4").write_bytes(data)  # some are WebM under this name, as mirrors have them
        progress("demo videos", number, len(videos))
    told = {
        video.video_id: captions[video.captions_of or video.video_id]
        for video in videos
        if video.planted != "no_captions"
    }
    with (inbox / "HowTo100M_v1.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, INDEX_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: getattr(video, name) for name in INDEX_COLUMNS} for video in videos)
    (inbox / "raw_caption.json").write_text(json.dumps(told), encoding="utf-8")


def _write_narrations(folder: Path, narrations: Sequence[Narration], web: str, speak: Speak) -> None:
    (folder / "site" / "sounds").mkdir(parents=True)
    (folder / "inbox" / "sounds").mkdir(parents=True)
    for one in narrations:
        if one.planted != "missing":
            (folder / "site" / one.file).write_bytes(_sound_file(one, speak))
    records = [{"url": f"{web}/{one.file}", "transcript": one.transcript, "language": "en"} for one in narrations]
    pq.write_table(pa.Table.from_pylist(records, _NARRATIONS), folder / "inbox" / "sounds" / "narrations.parquet")


def _sound_file(narration: Narration, speak: Speak) -> bytes:
    if narration.planted == "not_sound":
        return b"<!doctype html><title>Sign in</title><p>Please sign in to hear this.</p>"
    wave = speak(narration.said)
    if narration.planted == "silence":
        wave = np.zeros(2 * SAMPLE_RATE, np.float32)
    data = flac(wave)
    return data[: len(data) // 2] if narration.planted == "cut_short" else data


def _write_notes(path: Path, notes: Sequence[Note]) -> None:
    path.parent.mkdir(parents=True)
    lines = [json.dumps(asdict(note), ensure_ascii=False) + "\n" for note in notes]
    path.write_text("".join(lines), encoding="utf-8")
