"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmdata.config import Corpus
    from mmdata.workspace import Workspace

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The corpus.", envvar="MMDATA_CONFIG")]
CONFIG = Path("corpus.yaml")


def open_corpus(config: Path) -> tuple[Corpus, Workspace]:
    """Read corpus.yaml. Raises UserError where it is missing or wrong."""
    from mmdata.corpus_file import load_corpus
    from mmdata.workspace import Workspace

    corpus = load_corpus(config)
    return corpus, Workspace(corpus.workspace)
