"""The models and weights that open_clip knows, read from its files: importing it takes seconds and imports torch."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmdata.config.score import Score
from mmdata.config.scorers import SCHEMAS, resolved
from mmdata.errors import UserError


@dataclass(frozen=True, slots=True)
class Published:
    """Where weights are published.

    Args:
        hub: `owner/name/` or `owner/name/file` on the Hugging Face hub; empty: not there.
        url: of the file; empty: only on the hub.
    """

    hub: str = ""
    url: str = ""
    quick_gelu: bool = False


KnownModels = Mapping[str, Mapping[str, Published]]
"""Model -> tag -> where the weights are; a model without published weights has no tags."""


def check_names(score: Score) -> None:
    """Raise UserError for a model or a tag that open_clip does not have, with the nearest names.

    Nothing is loaded. Hub ids and folders are not checked here; nor is anything if open_clip is not installed.
    """
    score = resolved(score)
    if score.model == "demo" or score.model.startswith(SCHEMAS):
        return
    if models := known_models():
        check_against(score, models)


def check_against(score: Score, known: KnownModels) -> None:
    """Raise UserError if a model or its tag is not among the known ones."""
    model = score.model.replace("/", "-")
    if model not in known:
        raise UserError(
            f"score.model: open_clip has no model {score.model!r}. Remedy: use one of the nearest names "
            f"({_nearest(model, list(known))}), or `demo`, `hf-hub:<owner>/<name>`, `local-dir:<folder>`."
        )
    tags = list(known[model])
    if score.pretrained is None:
        raise UserError(
            f"score.pretrained: {score.model} without weights would score at random. Remedy: give a tag "
            f"({', '.join(tags) or 'open_clip lists none for it'}) or the path of a checkpoint."
        )
    if clean_tag(score.pretrained) in known[model] or Path(score.pretrained).is_file():
        return
    models_with_tag = sorted(name for name, published in known.items() if score.pretrained in published)
    hint = f" Models with this tag: {', '.join(models_with_tag)}." if models_with_tag else ""
    raise UserError(
        f"score.pretrained: {score.pretrained!r} is neither a file nor a tag of {score.model}. Remedy: the nearest "
        f"tags are {_nearest(score.pretrained, tags) if tags else 'none, open_clip lists no weights for it'}.{hint}"
    )


def clean_tag(tag: str) -> str:
    """A tag as open_clip's table writes it."""
    return tag.lower().replace("-", "_")


@cache
def known_models() -> KnownModels:
    """What the installed open_clip knows; empty if it is not installed, or its files are written in another way."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        return {}
    package = Path(spec.origin).parent
    try:
        published = _published_weights((package / "pretrained.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, LookupError, TypeError, ValueError):
        return {}
    models = sorted(path.stem for path in (package / "model_configs").glob("*.json"))
    return {model: published.get(model, {}) for model in models}


def _published_weights(source: str) -> dict[str, dict[str, Published]]:
    """The table `_PRETRAINED` of open_clip's source: dictionaries of calls whose keywords are constants."""
    values: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call | ast.Dict):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    values[target.id] = _value(statement.value, values)
    table: dict[str, dict[str, Published]] = dict(values["_PRETRAINED"])
    for model, tags in values["_PRETRAINED"].items():
        if with_gelu := {tag: weights for tag, weights in tags.items() if weights.quick_gelu}:
            table[f"{model}-quickgelu"] = {**table.get(f"{model}-quickgelu", {}), **with_gelu}
    return table


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, known): _value(value, known) for key, value in pairs if key is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        keywords = {keyword.arg: _value(keyword.value, known) for keyword in node.keywords if keyword.arg}
        if node.func.id == "dict":
            return keywords
        places = {"hub": keywords.get("hf_hub"), "url": keywords.get("url")}
        return Published(places["hub"] or "", places["url"] or "", bool(keywords.get("quick_gelu")))
    return None


def _nearest(name: str, known_names: Sequence[str]) -> str:
    """The known names most like a name; the first few where none is alike."""
    by_lower = {known_name.lower(): known_name for known_name in known_names}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=5, cutoff=0.5)
    return ", ".join(by_lower[match] for match in matches) or ", ".join(known_names[:8])
