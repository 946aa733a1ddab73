"""Settings by name, and which of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdata.config import Clips, Download, Instruct, Privacy, Score, Select, Shards, Synthesis
from mmdata.fingerprint import canonical_json


@dataclass(frozen=True, slots=True)
class Change:
    """A setting and its values before and now, as JSON has them."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {canonical_json(self.old)} -> {canonical_json(self.new)}"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections as one level: `{"download": {"threads": 1}}` -> `{"download.threads": 1}`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": one for key, one in flat(value).items()}
        else:
            found[name] = value
    return found


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The settings whose values differ, by name. One that only one side names has its default on the other.

    Args:
        before, now: flat, as `flat` gives them.
    """
    names = sorted(before.keys() | now.keys())
    pairs = [Change(name, before.get(name, DEFAULTS.get(name)), now.get(name, DEFAULTS.get(name))) for name in names]
    return [one for one in pairs if canonical_json(one.old) != canonical_json(one.new)]


DEFAULTS: dict[str, Any] = {"seed": 0} | flat(
    {
        name: section().model_dump(mode="json")
        for name, section in {
            "download": Download,
            "clips": Clips,
            "privacy": Privacy,
            "synthesis": Synthesis,
            "score": Score,
            "select": Select,
            "shards": Shards,
            "instruct": Instruct,
        }.items()
    }
)
