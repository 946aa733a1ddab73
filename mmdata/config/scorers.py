"""The names in `score.model` and `score.pretrained`, understood without loading a model."""

from __future__ import annotations

from pathlib import Path

from mmdata.config.score import Score

DEMO_NAME = "demo (small offline scorer)"
SCHEMAS = ("hf-hub:", "local-dir:")
CONFIG_FILES = ("open_clip_config.json", "config.json")
"""Names of the file that describes the towers in a folder: of open_clip, and of transformers."""


def resolved(score: Score) -> Score:
    """The settings, with the path of a folder as model written as `local-dir:` and the folder of the towers in it.

    Such a folder is, for example, the output of the stage `align` of `mmdata train`.
    """
    if "/" not in score.model or ":" in score.model:  # `demo` is the scorer; `./demo` is a folder
        return score
    folder = Path(score.model)
    candidates = (folder, folder / "scorer", folder / "align" / "scorer")
    towers = next((path for path in candidates if any((path / name).is_file() for name in CONFIG_FILES)), None)
    return score if towers is None else score.model_copy(update={"model": f"local-dir:{towers}"})


def scorer_name(score: Score) -> str:
    """The name of the scorer in tables and manifests: `model/tag`; of local files only the file name."""
    score = resolved(score)
    if score.model == "demo":
        return DEMO_NAME
    schema, colon, place = score.model.partition(":")
    if schema == "local-dir":
        return schema + colon + Path(place).name
    if schema == "hf-hub":
        return score.model
    return f"{score.model}/{Path(score.pretrained or '').name}"


def is_local_checkpoint(score: Score) -> bool:
    """Whether the weights are the user's own files, which may change without a new name."""
    score = resolved(score)
    if score.model.startswith(SCHEMAS):
        return score.model.startswith("local-dir:")
    return score.pretrained is not None and Path(score.pretrained).is_file()
