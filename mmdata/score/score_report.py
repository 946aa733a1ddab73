"""The report of the features stage: counts, the score histogram, languages, and samples over the range of scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mmdata.config import Corpus
from mmdata.config.scorers import scorer_name
from mmdata.engine.part_run import PartResult
from mmdata.figures.charts import score_histogram
from mmdata.figures.sheet import sample_grid
from mmdata.samples import hash64
from mmdata.score.features_reader import read_slice_table
from mmdata.stage import StageReport
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace

GRID_SAMPLES = 12
MAX_LANGUAGES = 12  # the rest are counted together as `other`
MAX_CAPTION_CHARS = 120


class ShownSample(NamedTuple):
    """A sample in the report: its caption on one line, and its encoded picture."""

    uid: str
    clip_score: float
    caption: str
    image: bytes


def features_report(corpus: Corpus, workspace: Workspace, part_name: str, result: PartResult) -> StageReport:
    """Build the report of a part from its published tables.

    `images_per_s` is the number of distinct pictures divided by the seconds that the slices took when they ran,
    reading included. Captions stand in `tables` as plain text.
    """
    features = _read_features(workspace, part_name, list(result.slices))
    scores = features["clip_score"].drop_nulls().to_numpy()
    samples = _shown_samples(workspace, part_name, spread_samples(features, GRID_SAMPLES, corpus.seed))
    seconds = sum(stamp.numbers.get("seconds", 0.0) for stamp in result.slices.values())
    counts = result.stamp.counts
    numbers = {"images_per_s": counts.get("pictures", 0) / seconds if seconds else 0.0}
    if len(scores):
        p10, p50, p90 = np.percentile(scores, [10, 50, 90])
        numbers |= {"score_mean": float(scores.mean()), "score_p10": float(p10)}
        numbers |= {"score_p50": float(p50), "score_p90": float(p90)}
    title = f"Scores of {part_name} by {scorer_name(corpus.score)}"
    return StageReport(
        "features",
        part_name,
        counts=counts,
        reasons=result.stamp.reasons,
        version=result.stamp.digest,
        numbers=numbers,
        tables={
            "languages": language_table(features["lang"]),
            "samples": [
                {"uid": sample.uid, "clip_score": round(sample.clip_score, 4), "caption": sample.caption}
                for sample in samples
            ],
        },
        images={
            "score_histogram": score_histogram(scores, corpus.select.filter.min_clip_score, title).picture(),
            "samples": sample_grid(
                [sample.image for sample in samples],
                [sample.caption for sample in samples],
                [sample.clip_score for sample in samples],
            ),
        },
        paths={"features": str(workspace.part_dir(part_name) / "features")},
        slices_done=result.done,
        slices_reused=result.reused,
    )


def spread_samples(frame: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Pick scored samples over the whole range: `count` equal groups by score, and of each the sample of lowest hash.

    The result, best score first, is the same for any order of the frame.
    """
    scored = frame.drop_nulls("clip_score").sort("clip_score", "uid", descending=[True, False])
    groups = (np.arange(len(scored)) * min(count, len(scored)) // max(len(scored), 1)).astype(np.int64)
    scored = scored.with_columns(group=pl.Series(groups), draw=pl.Series(hash64(scored["uid"], seed, "sample_grid")))
    return scored.sort("group", "draw").unique("group", keep="first", maintain_order=True).drop("group", "draw")


def language_table(languages: pl.Series) -> list[dict[str, Any]]:
    """Languages by count, most common first, the rest as `other`; captions without a language count as `-`."""
    counts = languages.fill_null("-").value_counts(name="samples")
    counts = counts.sort("samples", languages.name, descending=[True, False])
    top = counts.head(MAX_LANGUAGES).iter_rows()
    rows: list[dict[str, Any]] = [{"lang": str(lang), "samples": int(count)} for lang, count in top]
    rest = int(counts["samples"][MAX_LANGUAGES:].sum())
    return [*rows, {"lang": "other", "samples": rest}] if rest else rows


def _read_features(workspace: Workspace, part_name: str, slice_names: list[str]) -> pl.DataFrame:
    """uid, clip_score, lang and slice of all rows of a part."""
    schema = {"uid": pl.String, "clip_score": pl.Float32, "lang": pl.String, "slice": pl.String}
    frames = [pl.DataFrame(schema=schema)]
    for name in slice_names:
        frame = read_slice_table(workspace, part_name, "features", name, ["uid", "clip_score", "lang"])
        frames.append(frame.with_columns(slice=pl.lit(name)))
    return pl.concat(frames)


def _shown_samples(workspace: Workspace, part_name: str, picked: pl.DataFrame) -> list[ShownSample]:
    """Read caption and picture of the picked samples, in their order."""
    samples: dict[str, ShownSample] = {}
    for (name,), group in picked.group_by("slice"):
        rows = read_slice_table(workspace, part_name, "rows", str(name), ["uid", "caption"])
        media = read_table(workspace.table(part_name, "media", str(name)), ["uid", "offset", "length"])
        joined = group.join(rows, on="uid").join(pl.DataFrame(media), on="uid").sort("offset")
        with workspace.media_tar(part_name, str(name), media.schema.metadata).open("rb") as tar:
            for row in joined.iter_rows(named=True):
                tar.seek(row["offset"])
                image = tar.read(row["length"])
                samples[row["uid"]] = ShownSample(row["uid"], row["clip_score"], _one_line(row["caption"]), image)
    return [samples[uid] for uid in picked["uid"]]


def _one_line(caption: str) -> str:
    """A caption on one line, without control characters, cut to a length that fits a cell."""
    printable = "".join(c if c.isprintable() else " " for c in caption)
    line = " ".join(printable.split())
    return line if len(line) <= MAX_CAPTION_CHARS else line[: MAX_CAPTION_CHARS - 1] + "…"
