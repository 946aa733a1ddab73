"""Reading the text format of Prometheus."""

from __future__ import annotations


def series(text: str) -> dict[str, float]:
    """Name and labels of each series -> its value."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
