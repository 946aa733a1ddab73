"""The data that is trained on: one pool, released in three ways, and a held-out set that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from mmdata.config import Balance, Corpus, Dedup, Filter, Oversample, Select
from mmdata.demo.demo_folder import DemoCorpus, make_demo
from mmdata.demo.web_server import DemoServer
from mmdata.download.stage import fetch_part
from mmdata.engine.freshness import features_input, releasable_parts, rows_input, stage_settings
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.score.stage import score_part
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.sources.catalog import update_catalog
from mmdata.storage.atomic import is_local
from mmdata.storage.tables import read_table, write_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import PART_STAGES, Catalog, PartStage, Workspace

VARIANTS = ("release", "raw", "unbalanced")
"""The release; every fetched sample once; the release without balance and oversampling."""


def build_demo(folder: Path, rows: int) -> DemoCorpus:
    """The offline demo corpus, fetched from its own web server on loopback, and scored."""
    from mmdata.config.load import load_corpus

    demo = make_demo(folder, rows)
    corpus = load_corpus(demo.config_path)
    workspace = Workspace(corpus.workspace)
    with DemoServer(demo.site, port=demo.port):
        update_catalog(corpus, workspace)
        for part in workspace.catalog().parts:
            for stage in (read_part, fetch_part, score_part):
                stage(corpus, workspace, part)
    return demo


def carve(corpus: Corpus, target: Path, uids: Sequence[str]) -> Workspace:
    """Some samples of a workspace as a workspace of their own: tables cut down, pictures linked, nothing fetched.

    Raises:
        UserError: the workspace is not on a local disk, or has no part that may be released.
    """
    source, cut = Workspace(corpus.workspace), Workspace(str(target))
    if not is_local(source.root):
        raise UserError(f"{source.root}: data_worth links pictures instead of fetching them: give a local workspace")
    parts, refused = releasable_parts(corpus, source)
    if not parts:
        raise UserError(f"{source.root}: no part may be released: {refused or 'there is none'}. Remedy: mmdata build.")
    wanted = pl.Series(uids, dtype=pl.String).implode()
    choice = fingerprint(sorted(uids))  # other samples are another input of the next stage
    for part in parts:
        upstream, digests = rows_input(part), dict[PartStage, str]()
        for stage in PART_STAGES:
            if stage == "features":
                upstream = features_input(digests["rows"], digests["media"])
            stamp = source.part_stamp(part.name, stage)
            assert stamp is not None  # releasable
            total = 0
            for name in stamp.slices:
                table = read_table(source.table(part.name, stage, name))
                keep = pl.Series(table["uid"].to_pylist(), dtype=pl.String).is_in(wanted)
                kept = table.filter(keep.to_arrow())
                write_table(cut.table(part.name, stage, name), kept)
                source_stamp = source.slice_stamp(part.name, stage, name)
                assert source_stamp is not None
                cut.write_slice_stamp(part.name, stage, name, replace(source_stamp, rows=len(kept)))
                total += len(kept)
            expected = fingerprint(stage_settings(corpus, part, stage), upstream)
            upstream = digests[stage] = fingerprint(stamp.digest, choice)
            cut.write_part_stamp(
                part.name, stage, replace(stamp, fingerprint=expected, digest=digests[stage], rows=total)
            )
        _link_media(Path(source.part_dir(part.name).path) / "media", Path(cut.part_dir(part.name).path) / "media")
    cut.write_catalog(Catalog({}, {part.name: part for part in parts}))
    return cut


def _link_media(source: Path, target: Path) -> None:
    for tar in source.glob("*.tar"):
        link = target / tar.name
        link.unlink(missing_ok=True)
        link.symlink_to(tar.resolve())


def variant_of(corpus: Corpus, name: str, workspace: str) -> Corpus:
    """A corpus whose release is one of VARIANTS; all of it is for training.

    Args:
        corpus: as configured: its own release is `release`.
    """
    select = corpus.select
    if name != "release":
        even = {"balance": Balance(max_ratio=None), "oversample": Oversample(max_repeats=1)}
        select = select.model_copy(update=even)
    if name == "raw":
        nothing = Dedup(url=False, exact=False, phash_bits=None, text_similarity=None, semantic_eps=None)
        select = Select(filter=Filter(), dedup=nothing, balance=select.balance, oversample=select.oversample)
    changes = {
        "workspace": workspace,
        "select": select,
        "shards": corpus.shards.model_copy(update={"validation_fraction": 0.0}),
        "instruct": corpus.instruct.model_copy(update={"tasks": ["transcribe"], "formats": []}),
    }
    return corpus.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Released:
    """A release to train on.

    Args:
        samples: copies counted; `distinct`: each once.
        true_share: of its distinct samples, those whose caption is true; None where the truth is not known.
    """

    samples: int
    distinct: int
    true_share: float | None


def release(corpus: Corpus, parts: Workspace, name: str, folder: Path, true_pair: pl.DataFrame | None) -> Released:
    """Publish a variant from the parts of a workspace, which are linked.

    Args:
        true_pair: uid and true_pair (bool), where the truth is known.
    """
    workspace, variant = Workspace(str(folder)), variant_of(corpus, name, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts").unlink(missing_ok=True)
    (folder / "parts").symlink_to((Path(parts.root.path) / "parts").resolve(), target_is_directory=True)
    workspace.write_catalog(parts.catalog())
    select_samples(variant, workspace)
    write_shards(variant, workspace)
    write_instructions(variant, workspace)
    publish_release(variant, workspace)
    latest = workspace.latest()
    assert latest is not None  # just published
    index = pl.read_parquet(workspace.release_dir(latest) / "index.parquet", columns=["uid"])
    distinct = index.unique("uid")
    share = None
    if true_pair is not None:
        share = float(distinct.join(true_pair, on="uid")["true_pair"].mean() or 0.0)  # type: ignore[arg-type]
    return Released(len(index), len(distinct), share)
