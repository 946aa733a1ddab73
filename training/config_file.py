"""Reads the settings of a training run from a preset, `train.toml` and `--set key=value`."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmdata.config.load import explain_validation
from mmdata.errors import UserError
from training.config import TrainConfig

PRESETS = ("tiny", "demo", "smollm2", "b16-360m", "b16-0.5b", "b32-0.5b", "l14-1b", "l14-7b")


def load_train_config(
    preset: str | None = None, path: str | Path | None = None, overrides: list[str] | None = None
) -> TrainConfig:
    """Read a preset, then a TOML file over it, then `key=value` pairs over both.

    Args:
        preset: one of PRESETS; or the file names it with `preset = "…"`.
        overrides: such as `align.lr=0.001`: a dotted key and a TOML value. Text that is not TOML is a string.

    Raises UserError: an unknown preset or key (the error names the nearest), a wrong value, or a file that is not TOML.
    """
    values: dict[str, Any] = {}
    name = "train config"
    if path is not None:
        name = str(path)
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except RecursionError:
            raise UserError(f"{path}: not valid TOML: too deeply nested") from None
        except ValueError as error:
            raise UserError(f"{path}: not valid TOML: {error}") from None
    preset = preset or values.pop("preset", None)
    values.pop("preset", None)
    if preset is not None:
        if preset not in PRESETS:
            raise UserError(f"no preset {preset!r}; the presets are {', '.join(PRESETS)}")
        text = (resources.files("training") / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
        values = _merged(tomllib.loads(text), values)
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override!r}: expected key=value, such as align.lr=0.001")
        values = with_setting(values, key.strip().split("."), _value(text.strip()))
    try:
        return TrainConfig.model_validate(values, context={"folder": None if path is None else Path(path).parent})
    except ValidationError as error:
        raise UserError("\n".join(f"{name}: {line}" for line in explain_validation(error, TrainConfig))) from None


def _value(text: str) -> Any:
    if text in ("null", "none", "None"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def with_setting(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """A copy of `values` in which one nested key is set."""
    first, *rest = keys
    if not rest:
        return _merged(values, {first: value})
    section = values.get(first)
    return {**values, first: with_setting(section if isinstance(section, dict) else {}, rest, value)}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge `above` over `below`. A model's `config` table is replaced as a whole, since its keys belong together."""
    merged = dict(below)
    for key, value in above.items():
        are_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if are_tables and not key.endswith("config") else value
    return merged
