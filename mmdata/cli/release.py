"""Commands about a release: `verify`, `report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption

if TYPE_CHECKING:
    from upath import UPath

ReleaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE",
        help="A release's folder, `releases/latest`, a workspace; or an id (or `latest`) in the corpus's workspace.",
    ),
]


def verify(
    release: ReleaseArgument,
    config: ConfigOption = CONFIG,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode pictures, frames, sound and video whole, too: slow.")
    ] = False,
) -> None:
    """Read every byte of a release again.

    Each is compared with what the manifest and the index say; what does not agree is named.
    """
    from mmdata.cli.console import console, summary_line
    from mmdata.publish.verify import verify_release

    folder = find_release(release, config)
    report = verify_release(folder, decode=decode)
    console().print(f"{folder}: sound; {summary_line(report)}", markup=False)


def report(release: ReleaseArgument = "latest", config: ConfigOption = CONFIG) -> None:
    """Write a release's report.html again."""
    from mmdata.report.stage import report_release

    folder = find_release(release, config)
    report_release(folder)
    typer.echo(str(folder / "report.html"))


def find_release(release: str, config: ConfigOption) -> UPath:
    """A release's folder, from a path or an id. Raises UserError where there is none."""
    from mmdata.cli.options import open_corpus
    from mmdata.errors import UserError
    from mmdata.releases.manifest import open_release

    if is_path(release):
        return open_release(release).folder
    _, workspace = open_corpus(config)
    name = workspace.latest() if release == "latest" else release
    if name is None:
        raise UserError(f"{workspace.root}: no release yet. Remedy: mmdata build -c {config}")
    return open_release(workspace.release_dir(name)).folder


def is_path(release: str) -> bool:
    """Whether a RELEASE argument names a place; else it is an id, or `latest`, in the corpus's workspace."""
    from upath import UPath

    return "/" in release or UPath(release).exists()
