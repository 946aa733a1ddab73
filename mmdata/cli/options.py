"""Options and arguments that several commands share, and what they name: a corpus or a release."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from upath import UPath

    from mmdata.config import Corpus, Observe
    from mmdata.workspace.layout import Workspace

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The corpus.yaml.", envvar="MMDATA_CONFIG")]
CONFIG = Path("corpus.yaml")
LogFormatOption = Annotated[str | None, typer.Option(metavar="text|json", help="Log for people, or for machines.")]
LogLevelOption = Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]
MetricsPortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port of 127.0.0.1.")
]
ReleaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE",
        help="The folder of a release, `releases/latest` or a workspace; or an id (or its first digits), or `latest`.",
    ),
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
    """Set the log format and level of this process and of those that it starts.

    None leaves the choice to the environment and corpus.yaml.
    """
    from mmdata.observe.logs import FORMAT_VARIABLE, LEVEL_VARIABLE

    for variable, value in ((FORMAT_VARIABLE, log_format), (LEVEL_VARIABLE, log_level)):
        if value is not None:
            os.environ[variable] = value


def observed(corpus: Corpus, metrics_port: int | None) -> Observe:
    """Section `observe` of corpus.yaml, with the port of the command line if there is one."""
    return corpus.observe if metrics_port is None else corpus.observe.model_copy(update={"metrics_port": metrics_port})


def find_release(release: str, config: Path) -> UPath:
    """The folder of a release, given its path or id. Raises UserError where there is none."""
    from mmdata.errors import UserError
    from mmdata.releases.manifest import open_release
    from mmdata.releases.pins import named_release

    if is_path(release):
        return open_release(release).folder
    _, workspace = open_corpus(config)
    name = workspace.latest() if release == "latest" else release
    if name is None:
        raise UserError(f"{workspace.root}: no release yet. Remedy: mmdata build -c {config}")
    return named_release(workspace, name).folder


def is_path(release: str) -> bool:
    """Whether a RELEASE argument is a path; else it is an id, or `latest`, in the workspace of the corpus."""
    from upath import UPath

    return "/" in release or UPath(release).exists()


def train_output(release: str, config: Path) -> str | None:
    """`train.output` of the corpus in which a RELEASE argument names an id; None for a path."""
    return None if is_path(release) else open_corpus(config)[0].train.output
