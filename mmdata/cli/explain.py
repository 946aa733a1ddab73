"""The command `explain`: everything that is known of one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.inspect.story import Story


def explain(
    uid: Annotated[str, typer.Argument(metavar="UID", help="The uid of the sample, or its first digits.")],
    config: ConfigOption = CONFIG,
) -> None:
    """Show everything that is known of a sample.

    That is its row, media, features and selection, where it is in the shards, and the instruction records that use it.
    """
    from mmdata.cli.console import console
    from mmdata.inspect.story import explain as read_story

    show_story(console(), read_story(*open_corpus(config), uid))


def show_story(out: Console, story: Story) -> None:
    """Print the story of a sample, stage by stage."""
    from mmdata.cli.console import facts, table
    from mmdata.inspect.story import extra_columns

    out.print(f"[bold]{story.uid}[/bold]")
    out.print(story.verdict, markup=False)
    for sighting in story.sightings:
        origin = f"{sighting.part.path}, row {sighting.rows.get('row')}"
        hidden = {"uid", "extra", "part", "source", "row"}
        rows = {name: value for name, value in sighting.rows.items() if name not in hidden}
        title = f"\nrows: part {sighting.part.name}, slice {sighting.slice_name}, from {origin}"
        out.print(facts(title, rows, grouped=False))
        if extra := extra_columns(sighting):
            out.print(facts("further columns of the source", extra, grouped=False))
        for stage, row in (("media", sighting.media), ("features", sighting.features)):
            if row is None:
                out.print(f"\n{stage}: nothing yet")
            else:
                values = {name: value for name, value in row.items() if name != "uid"}
                out.print(facts(f"\n{stage}", values, grouped=False))
        if sighting.stale:
            out.print(f"made with older settings than those of corpus.yaml: {', '.join(sighting.stale)}")
    if story.selection is not None:
        row = {name: value for name, value in story.selection.items() if name != "uid" and value is not None}
        out.print(facts(f"\nselection of release {story.release_id}", row, grouped=False))
    if story.places:
        names = ("key", "shard", "offset", "length")
        out.print(table("\nin the shards", names, [[str(place[name]) for name in names] for place in story.places]))
    if story.instructions:
        out.print(facts("\ninstruction records", story.instructions))
