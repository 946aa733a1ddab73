"""Section `observe`: logs and metrics, and when a part counts as stuck."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmdata.config.section import RelativePath, Section


class Observe(Section):
    """Logs and metrics, and when a part counts as stuck."""

    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or one JSON object a line; MMDATA_LOG and --log-format override it."
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None,
        description="The lowest level to log; null: `info` for JSON, `warning` for text. MMDATA_LOG_LEVEL and "
        "--log-level "
        "override it.",
    )
    stuck_after_s: float = Field(
        3600, gt=0, description="`mmdata status` calls a part stuck that has finished no slice for so many seconds."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of 127.0.0.1 for Prometheus; needs the extra `metrics`."
    )
    metrics_textfile: RelativePath | None = Field(
        None,
        description="File `*.prom` for node_exporter's textfile collector, relative to corpus.yaml; needs the extra "
        "`metrics`.",
    )
