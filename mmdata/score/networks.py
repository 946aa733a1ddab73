"""Further dual encoders that score pairs, such as a data filtering network (Fang et al. 2023), and their proof.

A network is named in `score.networks`; its cosines become the column `score_<name>` of the features. Its folder may
hold `network.json`, which the command that trains such networks writes: whether the network tells held-out pairs from
mismatches better than the scorer. One that does not must not decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mmdata.config import Score
from mmdata.config.scorers import resolved
from mmdata.errors import UserError

VERDICT_FILE = "network.json"
VERDICT_KEY = "beats_scorer"


def network_settings(score: Score, name: str) -> Score:
    """The settings by which a network is loaded: its own model, and the device and precision of the scorer."""
    network = score.networks[name]
    return score.model_copy(update={"model": network.model, "pretrained": network.pretrained, "networks": {}})


def refuse_unproven(score: Score, names: Iterable[str]) -> None:
    """Raise UserError if a network that is to decide did not beat the scorer in its held-out check.

    A network without `network.json` is the user's own scorer, and allowed.

    Args:
        names: of networks in `score.networks`; other names are left alone.
    """
    for name in names:
        if name not in score.networks:
            continue
        path = verdict_path(score.networks[name].model)
        if path is None:
            continue
        try:
            verdict = json.loads(path.read_text(encoding="utf-8"))[VERDICT_KEY]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: has no verdict {VERDICT_KEY!r} ({error!r}), so score.networks.{name} cannot decide. "
                "Remedy: train the network again, which writes the file."
            ) from None
        if verdict is not True:
            raise UserError(
                f"{path}: score.networks.{name} did not beat the scorer on held-out pairs ({VERDICT_KEY}: {verdict}), "
                f"so it may not decide. Remedy: take `{name}` out of section select, or train it on better pairs."
            )


def verdict_path(model: str) -> Path | None:
    """The file with the verdict on a network: in its folder, or in the folder of its towers; None: there is none."""
    towers = resolved(Score(model=model)).model
    folders = [Path(place.removeprefix("local-dir:")) for place in (model, towers)]
    return next((path for folder in folders if (path := folder / VERDICT_FILE).is_file()), None)
