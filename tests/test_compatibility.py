"""A workspace or a release of an earlier version is recognised: identities and bytes stay.

tests/engine/test_fingerprints_stay.py has the fingerprints of settings. The values here were computed by version
0.1.0. If one of them changes, everybody's releases are built again. Change a value only together with `CODE_VERSIONS`,
and say so in the changelog. The names of the shards and the release's files also depend on the JPEG encoder of the
locked Pillow, which draws the test's pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from mmdata.samples import draws, sample_uid
from mmdata.urls import canonical_url
from tests.support.workspaces import build, release

RELEASE_ID = "81d3deea8bcd7c3f"
SHARDS = [
    "train-c0000-00000-8e6d7d9a2179.tar",
    "train-c0000-00001-2bd0539ca1ae.tar",
    "train-c0000-00002-bba7797f8fa5.tar",
    "train-c0000-00003-ba27946ce244.tar",
    "train-c0000-00004-75cc511ff5d7.tar",
]
"""Shards are named by the SHA-256 of their bytes."""

FILES = {
    ".nv-meta/.info.yaml": "07f1c110f23dd707",
    ".nv-meta/dataset.yaml": "576f5873f291e9b3",
    ".nv-meta/split.yaml": "17438b7fdd30af70",
    "instruct-chat-train.jsonl": "97a554b2ea9088b7",
    "instruct-llava-train.jsonl": "e43524b6f6f2d9d3",
    "instruct-record-train.jsonl": "c066dbce18c99cee",
    "instructions.json": "3f3b8039e2c8ca67",
    "rates.json": "cfaf3c8cb1f713b8",
    "shards.json": "3e7cbc2e473c13aa",
    "wids-validation.json": "542b7a5500969d49",
    "wids.json": "14bfabf65b40de84",
}
"""Files of the release -> the first digits of their SHA-256; not of Parquet, which names the version of its writer."""


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
