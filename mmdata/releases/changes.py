"""The change from a release's parent, as the UI and the command line show it: from `changes.json`, or from a diff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdata.display import markdown, printable
from mmdata.figures import charts

Changes = Mapping[str, Any]
"""What `Diff.to_json` gives, with or without `sudden`."""


def change_tables(changes: Changes | None, names: int = 10) -> dict[str, list[dict[str, Any]]]:
    """What came, what went and why, and what moved most; nothing where there was no parent."""
    if changes is None:
        return {}
    moved = [
        {
            "of": field,
            "name": printable(shift["name"]),
            "before": shift["before"],
            "after": shift["after"],
            "share_change": round(shift["share_after"] - shift["share_before"], 4),
        }
        for field, shifts in changes["mix"].items()
        for shift in shifts[:names]
        if shift["before"] != shift["after"]
    ]
    return {
        "added since the parent": [{"why": why, "samples": count} for why, count in changes["added"].items()],
        "dropped since the parent": [{"why": why, "samples": count} for why, count in changes["dropped"].items()],
        "what moved": sorted(moved, key=lambda row: -abs(row["share_change"]))[: 2 * names],
    }


def change_text(changes: Changes | None) -> dict[str, str]:
    """The change in a line, and what was sudden about it."""
    if changes is None:
        return {}
    texts = {"changes": markdown(change_line(changes))}
    if changes.get("sudden"):
        texts["sudden changes"] = "\n".join(f"- {markdown(line, 400)}" for line in changes["sudden"])
    return texts


def change_line(changes: Changes) -> str:
    """A difference in one line."""
    counts = changes["counts"]
    return (
        f"{counts['added']:,} samples added, {counts['dropped']:,} dropped, {counts['stayed']:,} stayed "
        f"({counts['repeats_up']:,} with more copies, {counts['repeats_down']:,} with fewer); "
        f"{counts['shards_new']:,} of {counts['shards_new'] + counts['shards_reused']:,} shards are new"
    )


def change_images(changes: Changes | None) -> dict[str, bytes]:
    """Signatures and scores before and after, as SVG of less than 20 KB."""
    if changes is None:
        return {}
    signatures = changes["mix"]["signature"]
    before = {shift["name"]: shift["before"] for shift in signatures}
    after = {shift["name"]: shift["after"] for shift in signatures}
    mix = charts.before_after_bars(before, after, "Samples by modality, and in the parent")
    images = {"mix since the parent": mix.picture()}
    scores = changes["scores"]
    if scores["stability"] is not None:
        images["scores since the parent"] = charts.two_histograms(
            scores["edges"], scores["before"], scores["after"], "Scores, and in the parent"
        ).picture()
    return images
