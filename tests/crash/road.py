"""The whole road in one process without Dagster: what the graph does, stage by stage, under the same leases."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.config import OptOutList
from mmdata.config.load import load_corpus
from mmdata.download.stage import fetch_part
from mmdata.engine.freshness import configured_parts, plan_part
from mmdata.instruct.stage import write_instructions
from mmdata.optout.lists import read_list
from mmdata.publish.release import publish_release
from mmdata.releases.collect import collect_garbage
from mmdata.releases.draft import read_draft
from mmdata.report.stage import report_release
from mmdata.score import stage
from mmdata.score.preprocess import Preprocess
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.sources.catalog import update_catalog
from mmdata.takedown.find import find
from mmdata.takedown.forget import finish, forget, is_forgotten
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import EXPIRY_S, leased

DIM = 8
STAGES = {"rows": read_part, "media": fetch_part, "features": stage.score_part}


class CheapScorer:
    """Embeds by colour and by hash: what a crash test needs of a scorer is that it is the same each time."""

    name = "cheap"
    fingerprint = "0123456789abcdef"
    dim = DIM
    batch_size = 16
    preprocess = Preprocess(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        colours = pixels.reshape(len(pixels), -1, 3).mean(1) + 1
        return _unit(np.concatenate([colours, colours**2 / 100, np.ones((len(pixels), DIM - 6))], 1))

    def embed_texts(self, captions: list[str]) -> np.ndarray:
        digests = [hashlib.sha256(caption.encode()).digest()[:DIM] for caption in captions]
        return _unit(np.array([list(digest) for digest in digests], np.float64).reshape(-1, DIM) + 1)


def build(config: Path, expiry_s: float = EXPIRY_S) -> None:
    """Bring everything up to date and publish a release."""
    corpus = load_corpus(config)
    workspace = Workspace(corpus.workspace)
    alone = partial(leased, workspace, wait_s=corpus.engine.wait_s, expiry_s=expiry_s)
    with alone("release", "source_catalog"):
        update_catalog(corpus, workspace)
    for part in configured_parts(corpus, workspace):
        for name in plan_part(corpus, workspace, part).stale:
            with alone(f"part-{part.name}", name):
                STAGES[name](corpus, workspace, part.name)
    with alone("release", "release"):
        select_samples(corpus, workspace)
        write_shards(corpus, workspace)
        write_instructions(corpus, workspace)
        publish_release(corpus, workspace)
        report_release(workspace.release_dir(read_draft(workspace).release_id))


def collect(config: Path) -> None:
    """Delete all releases but the latest."""
    collect_garbage(Workspace(load_corpus(config).workspace), keep=1, grace_s=0)


def forget_listed(config: Path) -> None:
    """Forget what `forget.txt` lists, as the command does; release without it, and delete what holds it."""
    corpus = load_corpus(config)
    workspace = Workspace(corpus.workspace)
    asked = list(read_list(OptOutList(path=str(config.with_name("forget.txt")))))
    finish(corpus, workspace, by="Ada")
    if not is_forgotten(workspace, asked):
        forget(corpus, workspace, find(workspace, asked), by="Ada")
    build(config)
    collect(config)


WORK: dict[str, Any] = {
    "build": build,
    "build, short leases": partial(build, expiry_s=1.0),
    "collect": collect,
    "forget": forget_listed,
}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
