"""The command `verify`: whether the bytes of a release are what its manifest says."""

from __future__ import annotations

from typing import Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, ReleaseArgument, find_release


def verify(
    release: ReleaseArgument,
    config: ConfigOption = CONFIG,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode all media; this is slow.")] = False,
) -> None:
    """Read every byte of a release again.

    Compares it with the manifest and the index, and names everything that differs.
    """
    from mmdata.cli.console import console, summary_line
    from mmdata.publish.verify import verify_release

    folder = find_release(release, config)
    report = verify_release(folder, decode=decode)
    console().print(f"{folder}: sound; {summary_line(report)}", markup=False)
