"""The media stage: fetches what a part's rows point at, into one tar and one table a slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from mmdata.config import Corpus
from mmdata.download.media_counts import NOT_FETCHABLE, failed_urls
from mmdata.download.media_settings import MediaSettings
from mmdata.download.slices import fetch_slice
from mmdata.engine.deciding_settings import deciding_settings, rules_changed
from mmdata.engine.freshness import fetched_files, is_due, media_refusal, media_reuse
from mmdata.engine.part_run import run_part_stage
from mmdata.engine.stage_fingerprints import named_settings, stage_settings
from mmdata.errors import DataError
from mmdata.observe import metrics
from mmdata.optout.hashes import load_opt_out
from mmdata.sources.source_rules import is_rule
from mmdata.stage import Progress, StageReport, add_counts, silent
from mmdata.urls import host_and_port
from mmdata.workspace.layout import SliceStamp, Workspace, redo_remedy
from mmdata.workspace.media_tar import remove_unaddressed
from mmdata.workspace.paused_hosts import read_pauses


def fetch_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Fetch what is missing of a part's media, and the failures that are due again. Successes are not fetched again.

    Raises:
        DataError: the part's rows are not read yet.
        PartFailed: a slice failed as a whole (a full disk, a corrupt table). Failures of single rows never raise.
    """
    part = workspace.part(part_name)
    rows = workspace.part_stamp(part_name, "rows")
    if rows is None:
        raise DataError(f"part {part_name} has no rows yet. {redo_remedy(part_name, 'rows')}")
    inputs = {name: _slice_digest(workspace, part_name, name) for name in rows.slices}
    settings, deciding = stage_settings(corpus, part, "media"), deciding_settings(corpus, part.source)
    reuse_of = partial(media_reuse, corpus, part, workspace.part_stamp(part_name, "media"))
    stamps = {name: workspace.slice_stamp(part_name, "media", name) for name in inputs}
    reuse = {name: reuse_of(stamp) for name, stamp in stamps.items() if stamp is not None}
    remove_unaddressed(workspace, part_name, inputs)
    work = partial(
        fetch_slice,
        root=str(workspace.root),
        part_name=part_name,
        settings=MediaSettings.of(corpus, part.source, load_opt_out(workspace), reuse),
        fingerprint=settings,
        progress=_PartProgress(progress, rows.rows) if corpus.engine.in_this_process else None,
    )
    result = run_part_stage(
        workspace,
        part_name,
        "media",
        settings=settings,
        inputs=inputs,
        upstream=rows.digest,
        work=work,
        engine=corpus.engine,
        named=named_settings(corpus, part, "media"),
        deciding=deciding,
        is_due=lambda stamp: (
            is_due(stamp.next_retry_at) or bool(reuse_of(stamp).again.rows) or rules_changed(stamp.deciding, deciding)
        ),
        accept=partial(_refusal, min_success_share=corpus.download.min_success_share),
    )
    progress("media", rows.rows, rows.rows)
    pauses = read_pauses(workspace)
    metrics.paused_hosts(len(pauses))
    return StageReport(
        "media",
        part_name,
        counts=result.stamp.counts,
        reasons=result.stamp.reasons,
        version=result.stamp.digest,
        numbers=_numbers(result.stamp.counts, result.slices.values()),
        tables={
            "failures by host": _failures_by_host(workspace, part_name, result.stamp.slices),
            "hosts left alone": [asdict(pause) for pause in pauses.values()],
        },
        paths={"media": str(workspace.part_dir(part_name) / "media")},
        slices_done=result.done,
        slices_reused=result.reused,
    )


def _numbers(counts: Mapping[str, int], slices: Iterable[SliceStamp]) -> dict[str, float]:
    """The part's figures. The speed is that of one worker, in each slice's latest run."""
    success, files = fetched_files(counts)
    total = Counter[str]()
    for stamp in slices:
        total.update(stamp.numbers)
    return {
        "success_share": success / files if files else 1.0,
        "mean_bytes": total["bytes"] / max(total["bodies"], 1),
        "urls_per_s": total["fetched"] / max(total["seconds"], 1e-9),
    }


def _refusal(slices: Mapping[str, SliceStamp], min_success_share: float) -> str | None:
    return media_refusal(add_counts(stamp.counts for stamp in slices.values()), min_success_share)


def _slice_digest(workspace: Workspace, part_name: str, name: str) -> str:
    stamp = workspace.slice_stamp(part_name, "rows", name)
    if stamp is None:
        raise DataError(f"part {part_name}: slice {name} of rows has no stamp. {redo_remedy(part_name, 'rows', name)}")
    return stamp.digest


def _failures_by_host(workspace: Workspace, part_name: str, slices: tuple[str, ...]) -> list[dict[str, Any]]:
    """The ten hosts with the most failures: host, error class, count."""
    failures: Counter[tuple[str, str]] = Counter()
    for name in slices:
        for url, error in failed_urls(workspace, part_name, name):
            if error not in NOT_FETCHABLE and not is_rule(error):
                failures[host_and_port(url), error] += 1
    top = sorted(failures.items(), key=lambda item: (-item[1], item[0]))[:10]
    return [{"host": host, "error": error, "rows": count} for (host, error), count in top]


class _PartProgress:
    """Reports the progress of the part; is called with the number of rows that a slice has done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress("media", min(self._done, self._total), self._total)
