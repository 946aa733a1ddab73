"""Sections `engine`, `refresh`, `train` and `compare`: where and when work is done, and what is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import RelativePath, Section


class Engine(Section):
    """Where slices run."""

    backend: Literal["local", "ray"] = Field("local", description="`ray` needs the `ray` extra and a cluster.")
    workers: int = Field(1, ge=1, description="Slices at a time, each in a process of its own; 1: in the main process.")
    wait_s: float = Field(
        3600, ge=0, description="Seconds to wait for another build that works on the same part; 0: name it and stop."
    )

    @property
    def in_this_process(self) -> bool:
        """Whether slices run in the caller's process, so that they can report progress."""
        return self.backend == "local" and self.workers == 1


class Refresh(Section):
    """When the graph runs by itself."""

    refresh_cron: str = Field("0 1 * * *", description="When to look for new and changed source files.")
    release_cron: str = Field("0 5 * * *", description="When to publish a release from the accepted parts.")
    timezone: str = Field("UTC", description="An IANA time zone.")
    max_parts_per_tick: int = Field(20, ge=1, description="Part runs that the sensor keeps in the queue.")
    owners: list[str] = Field(default=["team:data"], description="Shown on every asset: an e-mail or `team:…`.")


class Train(Section):
    """What the graph's job `train_release` and `mmdata train` train on a release. It runs when someone asks for it."""

    preset: str | None = Field(
        "tiny",
        description="A preset of `mmdata train`: `tiny` trains in seconds on a CPU; null: the preset in `config`.",
    )
    answers: int = Field(
        64, ge=0, description="Held-out samples for which the graph's `evaluation` generates a caption or an answer."
    )
    config: RelativePath | None = Field(
        None, description="A train.toml that overrides the preset, relative to corpus.yaml."
    )
    set: list[str] = Field(
        default_factory=list, description="`key=value` settings that override both, as in `mmdata train --set`."
    )
    output: RelativePath | None = Field(
        None,
        description="Folder of the models, with a folder for each release and preset; null: `training` in a local "
        "workspace.",
    )
    processes: int = Field(
        1, ge=1, description="Processes on this machine, one for each GPU; more than 1 are started by torchrun."
    )

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


class Compare(Section):
    """How `mmdata compare` and the asset `comparison` measure which training set makes the better model."""

    steps: int = Field(300, ge=1, description="Optimiser steps of each training.")
    batch_size: int = Field(128, ge=2, description="Pairs a step.")
    seeds: int = Field(10, ge=1, description="Trainings of each arm; 1 gives no interval.")
    held_out_share: float = Field(
        0.2, gt=0, lt=1, description="Share of the groups (or pictures) that no arm is trained on, drawn by hash."
    )
    max_held_out: int = Field(2000, ge=20, description="At most so many pairs are measured on.")
    max_pairs: int = Field(
        200_000, ge=1, description="At most so many pairs of an arm are trained on, those of the lowest hashes."
    )
    group_column: str | None = Field(
        None, description="A column of the source whose equal values mark pairs that belong together."
    )
    truth: RelativePath | None = Field(
        None, description="A table of which captions are true: `uid`, `true_pair`, perhaps `concept`."
    )
