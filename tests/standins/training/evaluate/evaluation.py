"""`evaluate`: writes metrics where the real one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl


def evaluate(checkpoint: Path, release: str, **options: Any) -> dict[str, Any]:
    metrics = {"recall@1": 0.5} if checkpoint.name == "align" else {"perplexity": 8.0}
    held_out = pl.scan_parquet(Path(release) / "selection.parquet").filter(pl.col("split") == "validation")
    uid = held_out.select("uid").head(1).collect().item()
    hostile = {"uid": uid, "prompt": "what?", "expected": "<b>x</b> | [a](b)", "generated": "a boat\n# no heading"}
    found = {
        "stage": checkpoint.name,
        "step": 20,
        "release_id": Path(release).name,
        "samples": options.get("samples") or 16,
        "metrics": metrics,
        "answers": [] if checkpoint.name == "align" else [hostile],
        "options": {name: value for name, value in options.items() if not isinstance(value, Path)},
    }
    if options.get("classify"):
        scores = {"precision": 0.25, "recall": 0.5, "f1": 1 / 3}
        classes = [{"class": "cat", **scores, "support": 4}]
        found["classification"] = {"samples": 4, "macro": scores, "weighted": scores, "classes": classes}
    (checkpoint / "metrics.json").write_text(json.dumps(found))
    (checkpoint / "metrics.md").write_text("| metric | value |\n|---|---|\n")
    return found
