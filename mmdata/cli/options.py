"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmdata.config import Corpus
    from mmdata.workspace.layout import Workspace

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The corpus.", envvar="MMDATA_CONFIG")]
CONFIG = Path("corpus.yaml")
LogFormatOption = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="Log lines for people, or JSON for machines.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option("--metrics-port", min=1, max=65535, help="Serve Prometheus metrics on this port of 127.0.0.1."),
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
]


def open_corpus(config: Path) -> tuple[Corpus, Workspace]:
    """Read corpus.yaml, and log as it says. Raises UserError where it is missing or wrong."""
    from mmdata.config.load import load_corpus
    from mmdata.observe import logs
    from mmdata.workspace.layout import Workspace

    corpus = load_corpus(config)
    logs.configure(corpus.observe)
    return corpus, Workspace(corpus.workspace)


def log_as(log_format: str | None, log_level: str | None) -> None:
    """Have this process, and those that it starts, log so; None: as the environment and corpus.yaml say."""
    from mmdata.observe.logs import FORMAT_VARIABLE, LEVEL_VARIABLE

    for variable, value in ((FORMAT_VARIABLE, log_format), (LEVEL_VARIABLE, log_level)):
        if value is not None:
            os.environ[variable] = value
