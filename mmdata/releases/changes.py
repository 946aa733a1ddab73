"""How a release differs from its parent, as the UI and the command line show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdata.display import markdown, printable
from mmdata.figures import charts
from mmdata.releases.diff import Changes

NAMES_PER_FIELD = 10  # in the table of shifts; the whole table has at most twice as many rows


def change_tables(changes: Changes | None) -> dict[str, list[dict[str, Any]]]:
    """Tables of the samples added and dropped, with reasons, and of the largest shifts; empty without a parent."""
    if changes is None:
        return {}
    shifted: list[dict[str, Any]] = [
        {
            "of": field,
            "name": printable(shift["name"]),
            "before": shift["before"],
            "after": shift["after"],
            "share_change": round(shift["share_after"] - shift["share_before"], 4),
        }
        for field, shifts in changes["mix"].items()
        for shift in shifts[:NAMES_PER_FIELD]
        if shift["before"] != shift["after"]
    ]
    return {
        "added since the parent": [{"why": why, "samples": count} for why, count in changes["added"].items()],
        "dropped since the parent": [{"why": why, "samples": count} for why, count in changes["dropped"].items()],
        "what moved": sorted(shifted, key=lambda row: -abs(row["share_change"]))[: 2 * NAMES_PER_FIELD],
    }


def change_text(changes: Changes | None) -> dict[str, str]:
    """The change in one line, and the sudden changes as a list, both as Markdown; empty without a parent."""
    if changes is None:
        return {}
    text = {"changes": markdown(change_line(changes["counts"]))}
    if sudden := changes.get("sudden"):
        text["sudden changes"] = "\n".join(f"- {markdown(line, 400)}" for line in sudden)
    return text


def change_line(counts: Mapping[str, int]) -> str:
    """The counts of a `Diff` in one line."""
    return (
        f"{counts['added']:,} samples added, {counts['dropped']:,} dropped, {counts['stayed']:,} stayed "
        f"({counts['repeats_up']:,} with more copies, {counts['repeats_down']:,} with fewer); "
        f"{counts['shards_new']:,} of {counts['shards_new'] + counts['shards_reused']:,} shards are new"
    )


def change_images(changes: Changes | None) -> dict[str, bytes]:
    """Charts of signatures and scores before and after, as SVG of less than 20 KB each; empty without a parent."""
    if changes is None:
        return {}
    before, after = ({s["name"]: s[side] for s in changes["mix"]["signature"]} for side in ("before", "after"))
    mix = charts.before_after_bars(before, after, "Samples by modality, and in the parent")
    images = {"mix since the parent": mix.picture()}
    scores = changes["scores"]
    if scores["stability"] is not None:
        images["scores since the parent"] = charts.two_histograms(
            scores["edges"], scores["before"], scores["after"], "Scores, and in the parent"
        ).picture()
    return images
