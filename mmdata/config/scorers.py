"""Names of scorers: what `score.model` and `score.pretrained` may say, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from mmdata.config.score import Score

DEMO_NAME = "demo (small offline scorer)"
SCHEMAS = ("hf-hub:", "local-dir:")


def resolved(score: Score) -> Score:
    """A folder given by its path alone, such as a stage of `mmdata train`, as `local-dir:` of the towers in it."""
    if "/" not in score.model or ":" in score.model:  # a folder called `demo` is not the scorer called so
        return score
    folder = Path(score.model)
    found = [place for place in (folder, folder / "scorer", folder / "align" / "scorer") if _described(place)]
    return score.model_copy(update={"model": f"local-dir:{found[0]}"}) if found else score


def _described(folder: Path) -> bool:
    return (folder / "open_clip_config.json").is_file()


def scorer_name(score: Score) -> str:
    """What the scorer is called in tables and manifests: `model/tag`; of local files the last name alone."""
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
    """Whether the weights are files of the user's, which may change under their name."""
    score = resolved(score)
    if score.model.startswith(SCHEMAS):
        return score.model.startswith("local-dir:")
    return score.pretrained is not None and Path(score.pretrained).is_file()
