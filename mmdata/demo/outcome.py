"""What became of the demo's rows, set against the truth that was planted in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
from upath import UPath

from mmdata.config.load import load_corpus
from mmdata.demo.demo_corpus import DemoCorpus, open_demo
from mmdata.demo.planting import SOUND_ODDITIES
from mmdata.engine.freshness import configured_parts
from mmdata.errors import UserError
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Part, Workspace, read_json

TRUE_PAIRS = frozenset({"clean", "rare", "near_duplicate", "exact_duplicate", "repeated_url", *SOUND_ODDITIES})
"""Planted as a picture with its own English caption, and nothing else amiss: what a filter should keep."""


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The road in figures; a row is a source row until it is collapsed into its uid, then a sample.

    Args:
        rows_in: source rows read, of an index of videos their clips; `rows_accounted_for`: those that the selection
            stands for. Equal, or rows were lost.
        distinct: uids.
        fetched: uids with an image.
        refused, failed, filtered, deduplicated, balanced: reason -> uids.
        kept: uids in the release; `samples` counts copies too, `repeated` the copies beyond the first.
        clean_share_before, clean_share_after: true pairs among true and mismatched ones, as fetched and as released.
        mismatches: planted (fetched ones) -> caught by the filter, and what is left.
        good_pairs: true pairs fetched, lost to the score filter, lost to other rules, kept.
        copies_caught: planted -> copies of a kept picture that are gone, of all those fetched.
    """

    rows_in: int
    rows_accounted_for: int
    distinct: int
    fetched: int
    kept: int
    samples: int
    repeated: int
    validation: int
    shards: int
    shard_mb: float
    instructions: int
    clean_share_before: float
    clean_share_after: float
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    filtered: Mapping[str, int]
    deduplicated: Mapping[str, int]
    balanced: Mapping[str, int]
    mismatches: Mapping[str, int]
    good_pairs: Mapping[str, int]
    copies_caught: Mapping[str, str]
    kinds_before: Mapping[str, int]
    kinds_after: Mapping[str, int]
    scorer: str
    release: str
    manifest: str
    report: str


def summarise(folder: Path | str) -> DemoSummary:
    """Read the latest release of a demo, and compare it with the truth.

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
    home = workspace.release_dir(release)
    judged = judge(_joined(workspace, home / "selection.parquet", demo))
    index = scan_tables([home / "index.parquet"], ["uid", "split"]).collect()
    live = configured_parts(corpus, workspace)
    return DemoSummary(
        rows_in=sum(_samples_in(workspace, part) for part in live),
        shards=len(manifest["shards"]),
        shard_mb=round(sum(shard["bytes"] for shard in manifest["shards"]) / 1e6, 1),
        samples=len(index),
        repeated=len(index) - index["uid"].n_unique(),
        validation=int((index["split"] == "validation").sum()),
        instructions=_lines(home),
        scorer=str((manifest.get("scorer") or {}).get("name", "")),
        release=release,
        manifest=str(home / "manifest.json"),
        report=str(home / "report.html"),
        **judged,
    )


def judge(frame: pl.DataFrame) -> dict[str, Any]:
    """What the selection did with what was planted; pure.

    Args:
        frame: the selection's uid, copies, keep, reason, duplicate_of joined with media's status and error and the
            truth's planted, kind, of_uid (null where a uid was not planted).
    """
    reason = pl.col("reason").fill_null("")
    fetched = frame.filter(pl.col("status") == "success")
    true_pair = pl.col("planted").is_in(sorted(TRUE_PAIRS))
    by_score = reason.is_in(["filter:top_fraction", "filter:clip_score"])
    good, wrong = fetched.filter(true_pair), fetched.filter(pl.col("planted") == "mismatch")
    pictured = fetched.filter(true_pair | (pl.col("planted") == "mismatch"))
    left = wrong.filter("keep")
    return {
        "rows_accounted_for": int(frame["copies"].sum()),
        "distinct": len(frame),
        "fetched": len(fetched),
        "kept": int(frame["keep"].sum()),
        "refused": _counted(frame.filter(pl.col("status") == "refused"), "problem_or_error"),
        "failed": _counted(frame.filter(pl.col("status").str.starts_with("failed")), "error"),
        "filtered": _reasons(frame, "filter:"),
        "deduplicated": _reasons(frame, "duplicate:"),
        "balanced": _reasons(frame, "balance:"),
        "clean_share_before": _share(len(good), len(wrong)),
        "clean_share_after": _share(good.filter("keep").height, left.height),
        "mismatches": {
            "planted and fetched": len(wrong),
            "caught by the score filter": wrong.filter(by_score).height,
            "dropped for another reason": wrong.filter(~by_score & ~pl.col("keep")).height,
            "left in the release": left.height,
        },
        "good_pairs": {
            "fetched": len(good),
            "lost to the score filter": good.filter(by_score).height,
            "lost to other filters": good.filter(reason.str.starts_with("filter:") & ~by_score).height,
            "thinned as duplicates": good.filter(reason.str.starts_with("duplicate:")).height,
            "thinned by balance": good.filter(reason.str.starts_with("balance:")).height,
            "kept": good.filter("keep").height,
        },
        "copies_caught": {
            name: _copies_caught(fetched, name) for name in ("near_duplicate", "exact_duplicate", "repeated_url")
        },
        "kinds_before": _counted(pictured, "kind"),
        "kinds_after": _counted(pictured.filter("keep"), "kind"),
    }


def lines(summary: DemoSummary) -> list[tuple[str, dict[str, str]]]:
    """The summary as titled tables of plain text, for any console."""
    values = {field.name: getattr(summary, field.name) for field in fields(summary)}
    plain = {name.replace("_", " "): _text(value) for name, value in values.items() if not isinstance(value, Mapping)}
    tables = [("the demo in figures", plain)]
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            tables.append((name.replace("_", " "), {str(key): _text(one) for key, one in value.items()}))
    return tables


def _joined(workspace: Workspace, selection: UPath, demo: DemoCorpus) -> pl.DataFrame:
    chosen = scan_tables([selection], ["uid", "part", "slice", "copies", "keep", "reason", "duplicate_of"]).collect()
    places = sorted(set(zip(chosen["part"].to_list(), chosen["slice"].to_list(), strict=True)))
    media = scan_tables([workspace.table(p, "media", s) for p, s in places], ["uid", "status", "error"])
    rows = scan_tables([workspace.table(p, "rows", s) for p, s in places], ["uid", "problem"])
    truth = pl.read_parquet(demo.truth_path).sort(pl.col("planted") == "repeated_row").unique("uid", keep="first")
    return (
        chosen.join(media.unique("uid", keep="first", maintain_order=True).collect(), on="uid", how="left")
        .join(rows.unique("uid", keep="first", maintain_order=True).collect(), on="uid", how="left")
        .with_columns(problem_or_error=pl.coalesce("problem", "error"))
        .join(truth.select("uid", "planted", "kind", "of_uid"), on="uid", how="left")
    )


def _samples_in(workspace: Workspace, part: Part) -> int:
    stamp = workspace.part_stamp(part.name, "rows")
    return (stamp.counts if stamp else {}).get("samples", part.stop - part.start)


def _copies_caught(fetched: pl.DataFrame, planted: str) -> str:
    """Of the copies whose original was fetched too, how many no longer stand beside it."""
    originals = fetched.select(of_uid="uid", original_kept="keep")
    pairs = fetched.filter(pl.col("planted") == planted).join(originals, on="of_uid")
    beside = pairs.filter(pl.col("keep") & pl.col("original_kept")).height
    return f"{pairs.height - beside} of {pairs.height}"


def _reasons(frame: pl.DataFrame, prefix: str) -> dict[str, int]:
    mine = frame.filter(pl.col("reason").str.starts_with(prefix)).with_columns(
        pl.col("reason").str.strip_prefix(prefix)
    )
    return _counted(mine, "reason")


def _counted(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Value -> rows, the most frequent first."""
    counts = frame[column].drop_nulls().value_counts().sort(["count", column], descending=[True, False])
    return {str(value): int(count) for value, count in counts.iter_rows()}


def _share(good: int, wrong: int) -> float:
    return round(good / (good + wrong), 3) if good + wrong else 0.0


def _lines(home: UPath) -> int:
    return sum(path.read_bytes().count(b"\n") for path in home.glob("instruct-*.jsonl"))


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
