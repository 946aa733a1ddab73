"""Sections `observe` and `alerts`: logs and metrics, when a part counts as stuck, and who hears of failures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mmdata.config.section import RelativePath, Section

Occasion = Literal["run_failure", "check_failure", "recovery"]


class Observe(Section):
    """Logs and metrics, and when a part counts as stuck."""

    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or one JSON object a line; MMDATA_LOG and --log-format override it."
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None,
        description="The lowest level to log; null: `info` for JSON, `warning` for text. MMDATA_LOG_LEVEL and "
        "--log-level override it.",
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


class Alerts(Section):
    """Who gets a message when something fails. A message holds only names and numbers. Releases hold none of this."""

    webhook_env: str | None = Field(
        None,
        description="The environment variable that holds the webhook's URL (of Slack, for example); the URL is a "
        "secret.",
    )
    webhook_file: RelativePath | None = Field(
        None, description="A file that holds the webhook's URL, instead of the variable."
    )
    command: str | None = Field(
        None, description="A shell command that gets the alert as JSON on standard input; it must end within timeout_s."
    )
    tell: list[Occasion] = Field(
        default=["run_failure", "check_failure"],
        description="The events to report: `run_failure`, `check_failure`, and `recovery` from a reported failure.",
    )
    ui_url: str | None = Field(None, description="Address of the Dagster UI, for the links in messages.")
    repeat_after_h: float = Field(
        24, gt=0, description="If the same failure happens again, it is reported again only after so many hours."
    )
    timeout_s: float = Field(5, gt=0, le=8, description="Seconds for each of three attempts; a tick has a minute.")

    @field_validator("webhook_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError("webhook_env is the name of an environment variable, not the URL itself")
        return name
