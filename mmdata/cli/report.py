"""The command `report`: the HTML page of a release."""

from __future__ import annotations

import typer

from mmdata.cli.options import CONFIG, ConfigOption, ReleaseArgument, find_release


def report(release: ReleaseArgument = "latest", config: ConfigOption = CONFIG) -> None:
    """Write report.html of a release again."""
    from mmdata.report.stage import report_release

    folder = find_release(release, config)
    report_release(folder)
    typer.echo(str(folder / "report.html"))
