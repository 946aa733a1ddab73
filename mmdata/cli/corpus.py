"""Commands about a corpus: `init`, `status`, `explain`, `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.explain import Story

SHOWN_PARTS = 40


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made if it is not there.")],
) -> None:
    """Write a commented corpus.yaml.

    Every key is in it, with its meaning and its default; one that is there already is left alone.
    """
    from mmdata.cli.template import corpus_template
    from mmdata.errors import UserError

    target = folder / "corpus.yaml"
    if target.exists():
        raise UserError(f"{target} is there already and is left as it is. Remedy: give another folder.")
    (folder / "inbox").mkdir(parents=True, exist_ok=True)
    target.write_text(corpus_template(), encoding="utf-8")
    typer.echo(f"wrote {target}\nput metadata files into {folder / 'inbox'}, then: mmdata build -c {target}")


def schema() -> None:
    """Print the JSON schema of corpus.yaml.

    Editors complete and check YAML with it.
    """
    import json

    from mmdata.config import Corpus

    typer.echo(json.dumps(Corpus.model_json_schema(), indent=1, ensure_ascii=False))


def status(
    config: ConfigOption = CONFIG,
    every: Annotated[bool, typer.Option("--all", help=f"List every part, not only {SHOWN_PARTS}.")] = False,
) -> None:
    """Show parts, failures and the latest release.

    Parts by stage, what failed and why, what was refused for which reason, the retries that are due.
    """
    from mmdata.cli.console import console, facts, table
    from mmdata.status import corpus_status
    from mmdata.workspace import PART_STAGES

    corpus, workspace = open_corpus(config)
    now = corpus_status(corpus, workspace)
    out = console()
    troubled = sorted(now.parts, key=lambda one: one.ready)  # what needs a look comes first
    shown = troubled if every else troubled[:SHOWN_PARTS]
    rows = [
        (
            one.part.name,
            one.rows,
            *(one.stages[stage] for stage in PART_STAGES),
            one.why.splitlines()[0] if one.why else "",
        )
        for one in shown
    ]
    ready = sum(one.ready for one in now.parts)
    out.print(
        table(f"{len(now.parts)} parts, {ready} ready for a release", ("part", "rows", *PART_STAGES, "why"), rows)
    )
    if len(shown) < len(troubled):
        out.print(f"… and {len(troubled) - len(shown)} more: --all")
    for path, error in now.unreadable.items():
        out.print(f"unreadable: {path}: {error}", markup=False)
    reasons = [(s, r, n) for s, counts in now.reasons.items() for r, n in sorted(counts.items(), key=lambda i: -i[1])]
    if reasons:
        out.print(table("refused and failed", ("stage", "reason", "rows"), reasons))
    if now.retries_due:
        out.print(f"retries are due in {now.retries_due} parts: mmdata build")
    if now.release is None:
        out.print("no release yet: mmdata build")
    else:
        plain: dict[str, object] = {key: now.release[key] for key in ("release_id", "path", "created_at", "shards")}
        out.print(facts("latest release", plain | now.release["counts"]))


def explain(
    uid: Annotated[str, typer.Argument(metavar="UID", help="The sample's uid, or its first digits.")],
    config: ConfigOption = CONFIG,
) -> None:
    """Tell a sample's whole story.

    Its row, media, features, selection, place in the shards and the instructions that show it.
    """
    from mmdata.cli.console import console
    from mmdata.explain import explain as tell

    _show_story(console(), tell(*open_corpus(config), uid))


def _show_story(out: Console, story: Story) -> None:
    from mmdata.cli.console import facts, table
    from mmdata.explain import extra_columns

    out.print(f"[bold]{story.uid}[/bold]")
    out.print(story.verdict, markup=False)
    for one in story.sightings:
        where = f"{one.part.path}, row {one.rows.get('row')}"
        hidden = {"uid", "extra", "part", "source", "row"}
        rows = {name: value for name, value in one.rows.items() if name not in hidden}
        out.print(facts(f"\nrows: part {one.part.name}, slice {one.slice_name}, from {where}", rows, grouped=False))
        if extra := extra_columns(one):
            out.print(facts("the source's own columns", extra, grouped=False))
        for title, row in (("media", one.media), ("features", one.features)):
            if row is None:
                out.print(f"\n{title}: nothing yet")
            else:
                out.print(
                    facts(f"\n{title}", {name: value for name, value in row.items() if name != "uid"}, grouped=False)
                )
        if one.stale:
            out.print(f"older than corpus.yaml asks for: {', '.join(one.stale)}")
    if story.selection is not None:
        row = {name: value for name, value in story.selection.items() if name != "uid" and value is not None}
        out.print(facts(f"\nselection of release {story.release_id}", row, grouped=False))
    if story.places:
        names = ("key", "shard", "offset", "length")
        out.print(table("\nin the shards", names, [[str(place[name]) for name in names] for place in story.places]))
    if story.instructions:
        out.print(facts("\ninstruction records", story.instructions))
