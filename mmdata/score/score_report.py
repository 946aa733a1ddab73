"""What the features stage tells people: figures, the score histogram, a grid of samples over the range of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mmdata.config import Corpus
from mmdata.config.scorers import scorer_name
from mmdata.engine.part_run import PartResult
from mmdata.figures import charts
from mmdata.figures.sheet import sample_grid
from mmdata.samples import hash64
from mmdata.stage import StageReport
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import PartStage, Workspace

GRID_SAMPLES = 12
TOP_LANGUAGES = 12
CAPTION_CHARS = 120


def features_report(corpus: Corpus, workspace: Workspace, part_name: str, result: PartResult) -> StageReport:
    """Build the report of a part from its published tables.

    `images_per_s` counts pictures (each distinct one once) over the seconds of the slices, reading included, as they
    were when each slice ran. Captions stand in `tables` as plain text.
    """
    names = list(result.slices)
    columns = ("uid", "clip_score", "lang")
    nothing = pl.DataFrame(schema={"uid": pl.String, "clip_score": pl.Float32, "lang": pl.String, "slice": pl.String})
    frame = pl.concat(
        [nothing, *(_table(workspace, part_name, "features", n, columns).with_columns(slice=pl.lit(n)) for n in names)]
    )
    scores = frame["clip_score"].drop_nulls().to_numpy()
    chosen = spread_samples(frame, GRID_SAMPLES, corpus.seed)
    shown = _with_pictures(workspace, part_name, chosen)
    seconds = sum(stamp.numbers.get("seconds", 0.0) for stamp in result.slices.values())
    counts = result.stamp.counts
    numbers = {"images_per_s": counts.get("pictures", 0) / seconds if seconds else 0.0}
    if len(scores):
        p10, p50, p90 = np.percentile(scores, [10, 50, 90])
        numbers |= {"score_mean": float(scores.mean()), "score_p10": float(p10)}
        numbers |= {"score_p50": float(p50), "score_p90": float(p90)}
    threshold = corpus.select.filter.min_clip_score
    return StageReport(
        "features",
        part_name,
        counts=counts,
        reasons=result.stamp.reasons,
        numbers=numbers,
        tables={
            "languages": language_table(frame["lang"]),
            "samples": [
                {"uid": row["uid"], "clip_score": round(row["clip_score"], 4), "caption": _short(row["caption"])}
                for row in shown
            ],
        },
        images={
            "score_histogram": charts.score_histogram(
                scores, threshold, f"Scores of {part_name} by {scorer_name(corpus.score)}"
            ).picture(),
            "samples": sample_grid(
                [row["image"] for row in shown],
                [_short(row["caption"]) for row in shown],
                [row["clip_score"] for row in shown],
            ),
        },
        paths={"features": str(workspace.part_dir(part_name) / "features")},
        slices_done=result.done,
        slices_reused=result.reused,
    )


def spread_samples(frame: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Pick scored samples over the whole range: from each of `count` equal runs by score, the one of lowest hash.

    Args:
        frame: uid, clip_score and whatever else; rows without a score are not picked.

    Returns:
        At most `count` rows, best score first; the same for any order of the frame.
    """
    scored = frame.drop_nulls("clip_score").sort("clip_score", "uid", descending=[True, False])
    bins = (np.arange(len(scored)) * min(count, len(scored)) // max(len(scored), 1)).astype(np.int64)
    scored = scored.with_columns(bin=pl.Series(bins), draw=pl.Series(hash64(scored["uid"], seed, "sample_grid")))
    return scored.sort("bin", "draw").unique("bin", keep="first", maintain_order=True).drop("bin", "draw")


def language_table(languages: pl.Series) -> list[dict[str, Any]]:
    """Languages by count, most common first, the rest as `other`; `-` where a caption has none."""
    counts = (
        languages.fill_null("-")
        .value_counts(name="samples")
        .sort(["samples", languages.name], descending=[True, False])
    )
    top = counts.head(TOP_LANGUAGES).iter_rows()
    rows: list[dict[str, Any]] = [{"lang": str(lang), "samples": int(n)} for lang, n in top]
    rest = int(counts["samples"][TOP_LANGUAGES:].sum())
    return [*rows, {"lang": "other", "samples": rest}] if rest else rows


def _with_pictures(workspace: Workspace, part_name: str, chosen: pl.DataFrame) -> list[dict]:
    """The chosen samples with caption and encoded picture, in their order."""
    found = {}
    for (name,), group in chosen.group_by("slice"):
        rows = _table(workspace, part_name, "rows", str(name), ("uid", "caption"))
        media = read_table(workspace.table(part_name, "media", str(name)), ["uid", "offset", "length"])
        both = group.join(rows, on="uid").join(pl.DataFrame(media), on="uid").sort("offset")
        with workspace.media_tar(part_name, str(name), media.schema.metadata).open("rb") as tar:
            for row in both.iter_rows(named=True):
                tar.seek(row["offset"])
                found[row["uid"]] = {**row, "image": tar.read(row["length"])}
    return [found[uid] for uid in chosen["uid"]]


def _table(workspace: Workspace, part_name: str, stage: PartStage, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(read_table(workspace.table(part_name, stage, name), list(columns)))


def _short(caption: str) -> str:
    """A caption on one line, without control characters, cut to a length that fits a cell."""
    plain = "".join(c if c.isprintable() else " " for c in caption)
    plain = " ".join(plain.split())
    return plain if len(plain) <= CAPTION_CHARS else plain[: CAPTION_CHARS - 1] + "…"
