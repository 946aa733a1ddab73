"""Compare a release of the demo with the truth that was planted in its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config.load import load_corpus
from mmdata.demo.demo_folder import DemoCorpus, open_demo
from mmdata.demo.picture_plan import HARMLESS_ODDITIES
from mmdata.engine.freshness import configured_parts
from mmdata.errors import UserError
from mmdata.storage.tables import scan_tables
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Part, Workspace

TRUE_PAIRS = frozenset({"clean", "rare", "near_duplicate", "exact_duplicate", "repeated_url", *HARMLESS_ODDITIES})
"""What is planted where a picture has its own English caption and no other fault: what a filter should keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the selection did with the planted rows.

    Args:
        clean_share_before, clean_share_after: share of true pairs among true and mismatched pairs, as fetched and as
            released.
        refused, failed, filtered, deduplicated, balanced: reason -> uids.
        mismatches: planted wrong captions: fetched, caught by the score filter, dropped by other rules, left.
        copies_caught: kind of copy -> how many no longer stand beside their original, of all that were fetched.
        kinds_before, kinds_after: kind of picture -> uids, as fetched and as released.
    """

    rows_in: int  # source rows that were read; of an index of videos, its clips
    rows_accounted_for: int  # source rows that the selection's uids stand for; fewer than `rows_in`: rows were lost
    distinct: int  # uids
    fetched: int  # uids whose media were fetched
    kept: int  # uids in the release
    clean_share_before: float
    clean_share_after: float
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    filtered: Mapping[str, int]
    deduplicated: Mapping[str, int]
    balanced: Mapping[str, int]
    mismatches: Mapping[str, int]
    good_pairs: Mapping[str, int]  # true pairs: fetched, lost to each rule, kept
    copies_caught: Mapping[str, str]
    kinds_before: Mapping[str, int]
    kinds_after: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary(Judgement):
    """A release of the demo in figures; `samples` counts copies too, `repeated` only the copies beyond the first."""

    samples: int
    repeated: int
    validation: int
    shards: int
    shard_mb: float
    instructions: int
    scorer: str
    release: str
    manifest: str
    report: str


def summarise(folder: Path | str) -> DemoSummary:
    """Read the latest release of a demo, and compare it with the planted truth.

    Raises:
        UserError: the folder holds no demo, or nothing is released yet.
    """
    demo = open_demo(folder)
    if demo is None:
        raise UserError(f"{folder}: no demo here. Remedy: `mmdata demo` makes one.")
    corpus = load_corpus(demo.config_path)
    workspace = Workspace(corpus.workspace)
    release = workspace.latest()
    manifest = read_json(workspace.release_dir(release) / "manifest.json") if release else None
    if release is None or manifest is None:
        raise UserError(f"{workspace.root}: nothing is released yet. Remedy: `mmdata build -c {demo.config_path}`.")
    folder_of_release = workspace.release_dir(release)
    index = scan_tables([folder_of_release / "index.parquet"], ["uid", "split"]).collect()
    judgement = judge(
        _joined_samples(workspace, folder_of_release / "selection.parquet", demo),
        rows_in=sum(_samples_in(workspace, part) for part in configured_parts(corpus, workspace)),
    )
    return DemoSummary(
        shards=len(manifest["shards"]),
        shard_mb=round(sum(shard["bytes"] for shard in manifest["shards"]) / 1e6, 1),
        samples=len(index),
        repeated=len(index) - index["uid"].n_unique(),
        validation=int((index["split"] == "validation").sum()),
        instructions=sum(path.read_bytes().count(b"\n") for path in folder_of_release.glob("instruct-*.jsonl")),
        scorer=str((manifest.get("scorer") or {}).get("name", "")),
        release=release,
        manifest=str(folder_of_release / "manifest.json"),
        report=str(folder_of_release / "report.html"),
        **asdict(judgement),
    )


def judge(samples: pl.DataFrame, rows_in: int) -> Judgement:
    """Count what the selection did with the planted rows.

    Args:
        samples: the selection's uid, copies, keep, reason, joined with status and error of media, problem_or_error,
            and planted, kind, of_uid of the truth (null for uids that are not in it).
    """
    reason = pl.col("reason").fill_null("")
    fetched = samples.filter(pl.col("status") == "success")
    true_pair = pl.col("planted").is_in(sorted(TRUE_PAIRS))
    by_score = reason.is_in(["filter:top:s_clip_loss", "filter:nan_score"])
    good, wrong = fetched.filter(true_pair), fetched.filter(pl.col("planted") == "mismatch")
    judged = fetched.filter(true_pair | (pl.col("planted") == "mismatch"))
    wrong_kept = wrong.filter("keep")
    return Judgement(
        rows_in=rows_in,
        rows_accounted_for=int(samples["copies"].sum()),
        distinct=len(samples),
        fetched=len(fetched),
        kept=int(samples["keep"].sum()),
        refused=_counted(samples.filter(pl.col("status") == "refused"), "problem_or_error"),
        failed=_counted(samples.filter(pl.col("status").str.starts_with("failed")), "error"),
        filtered=_reasons(samples, "filter:"),
        deduplicated=_reasons(samples, "duplicate:"),
        balanced=_reasons(samples, "balance:"),
        clean_share_before=_share(len(good), len(wrong)),
        clean_share_after=_share(good.filter("keep").height, wrong_kept.height),
        mismatches={
            "planted and fetched": len(wrong),
            "caught by the score filter": wrong.filter(by_score).height,
            "dropped for another reason": wrong.filter(~by_score & ~pl.col("keep")).height,
            "left in the release": wrong_kept.height,
        },
        good_pairs={
            "fetched": len(good),
            "lost to the score filter": good.filter(by_score).height,
            "lost to other filters": good.filter(reason.str.starts_with("filter:") & ~by_score).height,
            "thinned as duplicates": good.filter(reason.str.starts_with("duplicate:")).height,
            "thinned by balance": good.filter(reason.str.starts_with("balance:")).height,
            "kept": good.filter("keep").height,
        },
        copies_caught={
            name: _copies_caught(fetched, name) for name in ("near_duplicate", "exact_duplicate", "repeated_url")
        },
        kinds_before=_counted(judged, "kind"),
        kinds_after=_counted(judged.filter("keep"), "kind"),
    )


def summary_tables(summary: DemoSummary) -> list[tuple[str, dict[str, str]]]:
    """The summary as tables of plain text with their titles: first its figures, then each breakdown."""
    figures: dict[str, str] = {}
    breakdowns = []
    for field in fields(summary):
        title, value = field.name.replace("_", " "), getattr(summary, field.name)
        if not isinstance(value, Mapping):
            figures[title] = _text(value)
        elif value:
            breakdowns.append((title, {str(key): _text(count) for key, count in value.items()}))
    return [("the demo in figures", figures), *breakdowns]


def _joined_samples(workspace: Workspace, selection: UPath, demo: DemoCorpus) -> pl.DataFrame:
    """Selection, media, rows and truth, one line per uid, as `judge` takes them."""
    selected = scan_tables([selection], ["uid", "part", "slice", "copies", "keep", "reason", "duplicate_of"]).collect()
    slices = sorted(set(zip(selected["part"].to_list(), selected["slice"].to_list(), strict=True)))
    media = scan_tables([workspace.table(part, "media", name) for part, name in slices], ["uid", "status", "error"])
    rows = scan_tables([workspace.table(part, "rows", name) for part, name in slices], ["uid", "problem"])
    truth = pl.read_parquet(demo.truth_path).sort(pl.col("planted") == "repeated_row").unique("uid", keep="first")
    return (
        selected.join(media.unique("uid", keep="first", maintain_order=True).collect(), on="uid", how="left")
        .join(rows.unique("uid", keep="first", maintain_order=True).collect(), on="uid", how="left")
        .with_columns(problem_or_error=pl.coalesce("problem", "error"))
        .join(truth.select("uid", "planted", "kind", "of_uid"), on="uid", how="left")
    )


def _samples_in(workspace: Workspace, part: Part) -> int:
    stamp = workspace.part_stamp(part.name, "rows")
    return (stamp.counts if stamp else {}).get("samples", part.stop - part.start)


def _copies_caught(fetched: pl.DataFrame, planted: str) -> str:
    """How many copies no longer stand beside their original, of those whose original was fetched too."""
    originals = fetched.select(of_uid="uid", original_kept="keep")
    pairs = fetched.filter(pl.col("planted") == planted).join(originals, on="of_uid")
    both_kept = pairs.filter(pl.col("keep") & pl.col("original_kept")).height
    return f"{pairs.height - both_kept} of {pairs.height}"


def _reasons(samples: pl.DataFrame, prefix: str) -> dict[str, int]:
    """Reason without its prefix -> uids, of the reasons with this prefix."""
    dropped = samples.filter(pl.col("reason").str.starts_with(prefix))
    return _counted(dropped.with_columns(pl.col("reason").str.strip_prefix(prefix)), "reason")


def _counted(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Value -> rows, the most frequent first."""
    counts = frame[column].drop_nulls().value_counts().sort(["count", column], descending=[True, False])
    return {str(value): int(count) for value, count in counts.iter_rows()}


def _share(good: int, wrong: int) -> float:
    return round(good / (good + wrong), 3) if good + wrong else 0.0


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
