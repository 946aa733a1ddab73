"""Rates of a release, which the next one keeps while they still fit, so that few shards change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from upath import UPath

from mmdata.config import Select
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.select.cuts import Cut, DensityBounds
from mmdata.storage.atomic import publish_json
from mmdata.workspace.json_files import read_json


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates, factors and cuts that a release was selected by.

    Args:
        settings: fingerprint of the settings that the rates follow from; others make them void.
        modality: signature -> a row stays if its draw is below.
        concept: concept -> p_e of MetaCLIP; a concept not named has 1.
        repeat: concept -> repeat factor r; a concept not named has 1.
        signature: the same of signatures.
        held_out: draw of the group that is the validation set, where none was below `shards.validation_fraction`.
        totals: `tokens` or `seconds` (in milliseconds), where balance counts those -> signature -> their sum before
            balance. `mmdata plan` reads it.
        cuts: rule -> where the top fraction ended, if there was one.
        density: where density-based pruning ended in each cluster. This, `cuts` and `held_out` outlast the settings.
    """

    settings: str
    modality: Mapping[str, float] = field(default_factory=dict)
    concept: Mapping[str, float] = field(default_factory=dict)
    repeat: Mapping[str, float] = field(default_factory=dict)
    signature: Mapping[str, float] = field(default_factory=dict)
    held_out: float | None = None
    totals: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    density: DensityBounds | None = None


def rates_settings(select: Select, seed: int, concepts: str) -> str:
    """Fingerprint of the settings that rates depend on: seed, balance, oversampling and the concept list."""
    balance = select.balance.model_dump(exclude={"tolerance", *select.balance.unused})
    return fingerprint("rates", 2, seed, balance, select.oversample, concepts)


def near(value: float, wanted: float, tolerance: float) -> bool:
    """Whether a value is within the relative tolerance of the wanted one."""
    return abs(value - wanted) <= tolerance * abs(wanted)


def keep_within_tolerance(wanted: np.ndarray, known: np.ndarray, tolerance: float) -> np.ndarray:
    """For each rate the known one if it is within the tolerance of the wanted one, else the wanted one."""
    return np.where(np.abs(known - wanted) <= tolerance * np.abs(wanted), known, wanted)


def write_rates(path: UPath, rates: Rates) -> None:
    """Publish as `rates.json`."""
    apart = ("cuts", "density", "totals")
    data = {key: _plain(value) for key, value in asdict(rates).items() if key not in apart}
    cuts = {rule: _plain_cut(cut) for rule, cut in rates.cuts.items()}
    data["cut"] = cuts.pop("top_fraction", None)
    further = {"totals": _plain(rates.totals), "cuts": cuts, "density": rates.density and asdict(rates.density)}
    publish_json(path, {"format": 1, **data, **{key: value for key, value in further.items() if value}})


def read_rates(path: UPath, settings: str) -> Rates | None:
    """Rates of a release; None if there are none, or if they were made with other settings.

    Raises:
        DataError: the file is there and is not what `write_rates` writes.
    """
    data = read_json(path)
    if data is None or data.get("settings") != settings:
        return None
    try:
        rates = (data["modality"], data["concept"], data["repeat"], data["signature"])
        return Rates(settings, *rates, totals=data.get("totals", {}), **_lasting(data))
    except KeyError as error:
        raise DataError(f"{path}: {error} is missing. Remedy: delete the file; new rates are set.") from None


def read_lasting(path: UPath, settings: str) -> Rates:
    """Rates of new settings, which hold what of a release outlasts its own: its `held_out` and its cuts."""
    return Rates(settings, **_lasting(read_json(path) or {}))


def _lasting(data: Mapping[str, Any]) -> dict[str, Any]:
    cuts = {"top_fraction": data.get("cut"), **data.get("cuts", {})}
    density = data.get("density")
    return {
        "held_out": data.get("held_out"),
        "cuts": {rule: Cut(**cut) for rule, cut in cuts.items() if cut is not None},
        "density": None if density is None else DensityBounds(**density),
    }


def read_totals(path: UPath) -> Mapping[str, Mapping[str, int]]:
    """The `totals` of a release's rates; empty if there are none."""
    return (read_json(path) or {}).get("totals", {})


def _plain_cut(cut: Cut) -> dict[str, Any]:
    return {key: value for key, value in asdict(cut).items() if value is not None}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
