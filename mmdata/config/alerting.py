"""Section `alerts`: who gets a message when something fails."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mmdata.config.section import RelativePath, Section

Occasion = Literal["run_failure", "check_failure", "recovery"]


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
