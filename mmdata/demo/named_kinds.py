"""Whether captions of the demo's pictures name the kind that the truth says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class NamedKinds:
    """Captions that name the true kind of their picture."""

    pictures: int  # held out, of a known kind, and captioned
    right: float  # share of their captions that name the kind
    with_other_pictures: float  # the same, of captions made from another sample's picture


def named_kinds(truth: Path, answers: Sequence[Mapping[str, Any]]) -> NamedKinds | None:
    """Count the captions of pictures that name their kind as a word; None without such pictures.

    Unlike the release's concepts, the kinds of the truth are right where a caption was planted at a wrong picture.

    Args:
        truth: truth.parquet of the demo.
        answers: of metrics.json of stage `joint`.
    """
    import polars as pl

    kinds = dict(pl.read_parquet(truth, columns=["uid", "kind"]).iter_rows())
    named = [
        (_names(answer["generated"], kinds[answer["uid"]]), _names(answer["with_other_picture"], kinds[answer["uid"]]))
        for answer in answers
        if answer["uid"] in kinds and answer.get("with_other_picture") is not None
    ]
    if not named:
        return None
    return NamedKinds(
        len(named), sum(own for own, _ in named) / len(named), sum(other for _, other in named) / len(named)
    )


def _names(caption: str, kind: str) -> bool:
    return kind in re.findall(r"\w+", caption.casefold())
