"""A workspace or a release of an earlier version is recognised: identities, fingerprints and bytes stay.

The values were computed by version 0.1.0. If one of them changes, everybody's workspaces are built again. Change a
value only together with `CODE_VERSIONS`, and say so in the changelog. The names of the shards and the release's files
also depend on the JPEG encoder of the locked Pillow, which draws the test's pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.config.load import parse_corpus
from mmdata.engine.freshness import stage_settings
from mmdata.samples import draws, sample_uid
from mmdata.urls import canonical_url
from mmdata.workspace.layout import PART_STAGES, Part
from tests.support.workspaces import build, release

CORPORA: dict[str, dict[str, Any]] = {
    "plain": {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "a/*.parquet"}]},
    "kinds": {
        "workspace": "w",
        "score": {"model": "demo"},
        "clips": {"min_clip_s": 5, "max_clip_s": 20, "frames": 4, "choose": "scene", "keep_video": True},
        "sources": [
            {"name": "pairs", "kind": "pairs", "files": "a.csv", "columns": {"url": "link", "caption": "alt"}},
            {
                "name": "films",
                "kind": "video",
                "files": "b.jsonl",
                "columns": {"url": "u", "caption": "c", "start_s": "s", "end_s": "e"},
            },
            {"name": "calls", "kind": "audio", "files": "c.parquet", "columns": {"url": "u", "caption": "t"}},
            {"name": "texts", "kind": "text", "files": "d.jsonl", "columns": {"caption": "text"}},
            {
                "name": "howto",
                "kind": "howto100m",
                "files": "h.csv",
                "captions": "raw.json",
                "fetch_from": "https://m.example/{video_id}.mp4",
            },
        ],
    },
    "everything": {
        "workspace": "w",
        "seed": 7,
        "sources": [
            {"name": "web", "kind": "laion", "files": "a/*.parquet", "slice_rows": 500, "part_rows": 5000},
            {"name": "films", "kind": "video", "files": "b.jsonl", "columns": {"url": "u", "caption": "c"}},
        ],
        "download": {
            "image_size": 512,
            "encode_quality": 90,
            "max_bytes": 5000000,
            "max_pixels": 10000000,
            "respect_robots": False,
            "threads": 3,
            "timeout_s": 2,
        },
        "privacy": {"blur_faces": True, "drop_voices": True, "min_face_score": 0.4},
        "synthesis": {"speech": 0.25},
        "score": {
            "model": "ViT-L-14",
            "pretrained": "openai",
            "precision": "bf16",
            "audio_model": "laion/clap",
            "transcriber": "openai/whisper-tiny",
            "batch_size": 3,
        },
        "select": {"filter": {"min_clip_score": 0.2}},
    },
    "faces": {
        "workspace": "w",
        "privacy": {"count_faces": True, "min_face_score": 0.7},
        "score": {"model": "demo"},
        "sources": [{"name": "web", "kind": "laion", "files": "a/*.parquet"}],
    },
}

SETTINGS = {
    "plain/web": ("c6fd03addfbfc7d0", "0df02a0b979c5b7d", "f61f0a8a8ebc5da5"),
    "kinds/pairs": ("4b04551bc6868650", "0df02a0b979c5b7d", "cbbc0cba066afc92"),
    "kinds/films": ("aaae4751af4353cc", "7d5ae2a9579dccbd", "cbbc0cba066afc92"),
    "kinds/calls": ("404b82c1a559c67e", "7d5ae2a9579dccbd", "cbbc0cba066afc92"),
    "kinds/texts": ("de5df0f09b39169b", "0df02a0b979c5b7d", "cbbc0cba066afc92"),
    "kinds/howto": ("46b773039bf2f864", "7d5ae2a9579dccbd", "cbbc0cba066afc92"),
    "everything/web": ("3aab0661c0f1ffa9", "227cf4bc423f25f1", "7c961c75e3600639"),
    "everything/films": ("c9b3bfb68cff0584", "871cc8e53cbc95a0", "7c961c75e3600639"),
    "faces/web": ("c6fd03addfbfc7d0", "0df02a0b979c5b7d", "0b35ef57d81cfb56"),
}
"""Corpus and source -> the fingerprints of the settings of rows, media and features."""

RELEASE_ID = "8afd995fadcf1aec"
SHARDS = [
    "train-c0000-00000-a11ee1a71842.tar",
    "train-c0000-00001-c3cf98966e48.tar",
    "train-c0000-00002-14fb02626f13.tar",
    "train-c0000-00003-c845f8c162ab.tar",
]
"""Shards are named by the SHA-256 of their bytes."""

FILES = {
    ".nv-meta/.info.yaml": "9434892545dafbc6",
    ".nv-meta/dataset.yaml": "576f5873f291e9b3",
    ".nv-meta/split.yaml": "c9478204b615700d",
    "instruct-chat-train.jsonl": "3d1778268702be3f",
    "instruct-llava-train.jsonl": "569b7c6f8c3a33b9",
    "instruct-record-train.jsonl": "cfadd8d89ff6875f",
    "instructions.json": "e73a0f82c7124395",
    "rates.json": "cfaf3c8cb1f713b8",
    "shards.json": "386c2aa053b1ac2f",
    "wids-validation.json": "d534d0d95549b077",
    "wids.json": "d410bc2297d63156",
}
"""Files of the release -> the first digits of their SHA-256; not of Parquet, which names the version of its writer."""


@pytest.mark.parametrize("source", SETTINGS)
def test_settings_have_the_fingerprints_that_they_had(source: str) -> None:
    corpus_name, _, source_name = source.partition("/")
    corpus = parse_corpus(CORPORA[corpus_name])
    part = Part(f"{source_name}-000000", source_name, f"inbox/{source_name}.parquet", 0, 100, "ab" * 32)
    assert tuple(stage_settings(corpus, part, stage) for stage in PART_STAGES) == SETTINGS[source]


def test_a_sample_has_the_identity_and_the_draw_that_it_had() -> None:
    uid = sample_uid(canonical_url("HTTP://Example.ORG:80/a b?x=1#top"), "a cat", 1.0, 2.5)
    assert uid == "0303c9848525a90e635a027578731c50"
    assert draws(pl.Series([uid]), 7, "balance")[0] == 0.9050488861191073


def test_a_release_has_the_id_and_the_bytes_that_it_had(tmp_path: Path) -> None:
    built = build(str(tmp_path), {"web-000000": range(12), "web-000001": range(8, 20)})
    assert release(built) == RELEASE_ID
    assert sorted(path.name for path in (tmp_path / "shards").glob("*.tar")) == SHARDS
    manifest = built.workspace.release_dir(RELEASE_ID) / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    digests = {name: facts["sha256"][:16] for name, facts in files.items()}
    assert {name: digests[name] for name in FILES} == FILES
