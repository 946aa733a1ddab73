"""Write the demo's how-to videos, narrations and texts: files of the site, and metadata as their sources give it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.demo.drawings import Emoji
from mmdata.demo.howto_video import Speak, render_video
from mmdata.demo.recording_plan import HowTo, Narration, Note, plan_narrations, plan_notes, plan_videos, timed_captions
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.stage import Progress

PICTURES_PER_VIDEO, MIN_VIDEOS = 100, 9
PICTURES_PER_NARRATION, MIN_NARRATIONS = 15, 16
PICTURES_PER_NOTE, MIN_NOTES = 10, 16
HOWTO100M_COLUMNS = ("video_id", "category_1", "category_2", "rank", "task_id")

_NARRATIONS = pa.schema([("url", pa.string()), ("transcript", pa.string()), ("language", pa.string())])


class RecordingCounts(NamedTuple):
    """How many recordings and texts a demo has."""

    videos: int
    narrations: int
    notes: int


def recording_counts(pictures: int) -> RecordingCounts:
    """How many videos, narrations and notes go with so many pictures."""
    return RecordingCounts(
        videos=max(MIN_VIDEOS, pictures // PICTURES_PER_VIDEO),
        narrations=max(MIN_NARRATIONS, pictures // PICTURES_PER_NARRATION),
        notes=max(MIN_NOTES, pictures // PICTURES_PER_NOTE),
    )


def write_recordings(
    folder: Path, pictures: int, emoji: Sequence[Emoji], base_url: str, speak: Speak, progress: Progress
) -> None:
    """Write inbox/howto/, inbox/sounds/, inbox/texts/ of a demo's folder and the files under site/ that they point at.

    The number of recordings follows from the number of `pictures`; `base_url` is that of the site.
    """
    counts = recording_counts(pictures)
    _write_videos(folder, plan_videos(counts.videos, emoji), speak, progress)
    _write_narrations(folder, plan_narrations(counts.narrations, emoji), base_url, speak)
    _write_notes(folder / "inbox" / "texts" / "notes.jsonl", plan_notes(counts.notes, emoji))


def _write_videos(folder: Path, videos: Sequence[HowTo], speak: Speak, progress: Progress) -> None:
    site, inbox = folder / "site" / "videos", folder / "inbox" / "howto"
    site.mkdir(parents=True)
    inbox.mkdir(parents=True)
    true_captions: dict[str, Any] = {}
    for number, video in enumerate(videos, 1):
        data, lengths_s = render_video(video, speak)
        true_captions[video.video_id] = timed_captions(video, lengths_s)
        if video.planted != "missing":
            (site / f"{video.video_id}.mp4").write_bytes(data)  # some are WebM under this name, as on real mirrors
        progress("demo videos", number, len(videos))
    published_captions = {
        video.video_id: true_captions[video.captions_of or video.video_id]
        for video in videos
        if video.planted != "no_captions"
    }
    with (inbox / "HowTo100M_v1.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HOWTO100M_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: getattr(video, name) for name in HOWTO100M_COLUMNS} for video in videos)
    (inbox / "raw_caption.json").write_text(json.dumps(published_captions), encoding="utf-8")


def _write_narrations(folder: Path, narrations: Sequence[Narration], base_url: str, speak: Speak) -> None:
    (folder / "site" / "sounds").mkdir(parents=True)
    (folder / "inbox" / "sounds").mkdir(parents=True)
    for narration in narrations:
        if narration.planted != "missing":
            (folder / "site" / narration.file).write_bytes(_sound_file(narration, speak))
    records = [
        {"url": f"{base_url}/{narration.file}", "transcript": narration.transcript, "language": "en"}
        for narration in narrations
    ]
    pq.write_table(pa.Table.from_pylist(records, _NARRATIONS), folder / "inbox" / "sounds" / "narrations.parquet")


def _sound_file(narration: Narration, speak: Speak) -> bytes:
    if narration.planted == "not_sound":
        return b"<!doctype html><title>Sign in</title><p>Please sign in to hear this.</p>"
    wave = speak(narration.speech)
    if narration.planted == "silence":
        wave = np.zeros(2 * SAMPLE_RATE, np.float32)
    data = flac(wave)
    return data[: len(data) // 2] if narration.planted == "cut_short" else data


def _write_notes(path: Path, notes: Sequence[Note]) -> None:
    path.parent.mkdir(parents=True)
    lines = [json.dumps(asdict(note), ensure_ascii=False) + "\n" for note in notes]
    path.write_text("".join(lines), encoding="utf-8")
