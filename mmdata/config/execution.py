"""Where and when the work is done, and what is trained on a release."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import RelativePath, Section


class Engine(Section):
    """Where slices run."""

    backend: Literal["local", "ray"] = Field("local", description="`ray` needs the `ray` extra and a cluster.")
    workers: int = Field(1, ge=1, description="Slices at a time, each in a process of its own; 1: in this one.")
    wait_s: float = Field(
        3600, ge=0, description="Seconds to wait for another build that works on the same part; 0: say who it is."
    )

    @property
    def in_this_process(self) -> bool:
        """Whether slices run where the caller is, so that they may call back (progress)."""
        return self.backend == "local" and self.workers == 1


class Refresh(Section):
    """When the graph runs by itself."""

    refresh_cron: str = Field("0 1 * * *", description="Looks for new and changed source files.")
    release_cron: str = Field("0 5 * * *", description="Publishes from the parts that are accepted.")
    timezone: str = Field("UTC", description="An IANA time zone.")
    max_parts_per_tick: int = Field(20, ge=1, description="Part runs that the sensor keeps in the queue.")
    owners: list[str] = Field(default=["team:data"], description="Shown on every asset: an e-mail or `team:…`.")


class Train(Section):
    """What the graph's job `train_release` and `mmdata train` train on a release. It runs when someone asks for it."""

    preset: str | None = Field(
        "tiny", description="A preset of `mmdata train`: `tiny` trains in seconds on a CPU; null: as `config` says."
    )
    config: RelativePath | None = Field(None, description="A train.toml over the preset, relative to corpus.yaml.")
    set: list[str] = Field(
        default_factory=list, description="`key=value` over both, as `mmdata train --set` takes them."
    )
    output: RelativePath | None = Field(
        None, description="The models' folder, in it one a release and preset; null: `training` in a local workspace."
    )
    processes: int = Field(1, ge=1, description="Processes on this machine, one a GPU; more than 1 start by torchrun.")

    @model_validator(mode="before")
    @classmethod
    def _a_file_names_its_own_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("config"):
            return {"preset": None, **data}
        return data

    @field_validator("set")
    @classmethod
    def _pairs(cls, pairs: list[str]) -> list[str]:
        if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
            raise ValueError(f"expected key=value, such as align.lr=0.001, not {wrong[0]!r}")
        return pairs
