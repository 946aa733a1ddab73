"""What a comparison is run with: section `compare` of corpus.yaml, and what the command line replaces of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.config import Compare, Corpus
from mmdata.config.load import explain_validation
from mmdata.errors import UserError
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace
from training.compare.experiment import Experiment
from training.compare.heads import Recipe


def experiment_of(corpus: Corpus | None, arms: Sequence[str], given: Mapping[str, Any]) -> Experiment:
    """The experiment.

    Args:
        given: keys of section `compare`, and held_out; None: what corpus.yaml says, or the default.

    Raises:
        UserError: a value is out of its range.
    """
    from pydantic import ValidationError

    section = (corpus.compare if corpus is not None else Compare()).model_dump()
    values = {name: value for name, value in given.items() if value is not None}
    held_out = values.pop("held_out", None)
    try:
        compare = Compare.model_validate(
            {**section, **values, **({"truth": str(values["truth"])} if "truth" in values else {})}
        )
    except ValidationError as error:
        raise UserError("\n".join(explain_validation(error, Compare))) from None
    return Experiment(
        arms=arms,
        seeds=compare.seeds,
        recipe=Recipe(steps=compare.steps, batch=compare.batch_size),
        held_out_share=compare.held_out_share,
        max_held_out=compare.max_held_out,
        max_pairs=compare.max_pairs,
        held_out=held_out,
        truth=None if compare.truth is None else Path(compare.truth),
        group_column=compare.group_column,
    )


def cache_folder(corpus: Corpus | None, given: Path | None) -> UPath:
    """Where vectors and ranks are kept: the given folder, else `compare` in a local workspace, else here."""
    if given is not None:
        return UPath(given.resolve())
    if corpus is not None and is_local(root := Workspace(corpus.workspace).root):
        return root / "compare"
    return UPath(Path("mmdata-compare").resolve())
