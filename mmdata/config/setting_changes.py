"""Settings by name, and the differences between two states of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdata.config import Corpus
from mmdata.fingerprint import canonical_json


@dataclass(frozen=True, slots=True)
class Change:
    """A setting with its old and its new value, as JSON values."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {canonical_json(self.old)} -> {canonical_json(self.new)}"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections as one level: `{"download": {"threads": 1}}` -> `{"download.threads": 1}`."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flattened |= {f"{name}.{key}": inner for key, inner in flat(value).items()}
        else:
            flattened[name] = value
    return flattened


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The settings whose values differ, by name. A setting that one side lacks has its default there.

    Args:
        before, now: settings by their full names, as `flat` returns them.
    """
    names = sorted(before.keys() | now.keys())
    pairs = [Change(name, before.get(name, DEFAULTS.get(name)), now.get(name, DEFAULTS.get(name))) for name in names]
    return [change for change in pairs if canonical_json(change.old) != canonical_json(change.new)]


_SECTIONS = ("download", "clips", "privacy", "synthesis", "score", "select", "shards", "instruct")
DEFAULTS: dict[str, Any] = {"seed": 0} | flat(
    {name: Corpus.model_fields[name].default.model_dump(mode="json") for name in _SECTIONS}
)
