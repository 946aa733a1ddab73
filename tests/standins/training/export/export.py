"""`export`: writes the table alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def export(
    checkpoint: Path,
    output: Path,
    *,
    int8: bool = False,
    prune: float | None = None,
    distill_steps: int | None = None,
    llava: bool = False,
    release: str | None = None,
) -> dict[str, Any]:
    output.mkdir(parents=True)
    said = {"checkpoint": checkpoint.name, "int8": int8, "prune": prune, "distill": distill_steps}
    said |= {"llava": llava, "release": release}
    (output / "table.md").write_text("\n".join(f"| {name} | {value} |" for name, value in said.items()))
    return said
