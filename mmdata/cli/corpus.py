"""Commands about a corpus: `init`, `status`, `explain`, `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.inspect.corpus_status import Status
    from mmdata.inspect.failing_hosts import FailingHosts
    from mmdata.inspect.story import Story

SHOWN_PARTS = 40


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made if it is not there.")],
) -> None:
    """Write a commented corpus.yaml.

    Every key is in it, with its meaning and its default; one that is there already is left alone.
    """
    from upath import UPath

    from mmdata.cli.template import corpus_template
    from mmdata.errors import UserError
    from mmdata.storage.atomic import publish_bytes

    target = folder / "corpus.yaml"
    if target.exists():
        raise UserError(f"{target} is there already and is left as it is. Remedy: give another folder.")
    (folder / "inbox").mkdir(parents=True, exist_ok=True)
    publish_bytes(UPath(target), corpus_template().encode())
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
    hosts: Annotated[
        int | None, typer.Option("--hosts", metavar="N", min=1, help="Read tables, and name the N worst hosts and why.")
    ] = None,
    disk: Annotated[bool, typer.Option("--disk", help="Look at every file, and say what takes the room.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object.")] = False,
) -> None:
    """Show parts, what is under way or stuck, failures, and the latest release.

    Parts by stage, how long what is left will take, what failed and why, the retries that are due. Reads stamps only,
    but for --hosts and --disk.
    """
    from mmdata.inspect.corpus_status import corpus_status, slices_with_media, to_json
    from mmdata.inspect.failing_hosts import failing_hosts
    from mmdata.workspace.disk_use import disk_use

    corpus, workspace = open_corpus(config)
    now = corpus_status(corpus, workspace)
    worst = failing_hosts(workspace, slices_with_media(workspace, now), hosts) if hosts else None
    room = disk_use(workspace) if disk else None
    if as_json:
        typer.echo(to_json(now, worst, room))
        return
    _show_status(now, every)
    if worst is not None:
        _show_hosts(worst)
    if room is not None:
        from mmdata.cli.console import console, table

        rows = [(kind, one.files, one.bytes) for kind, one in room.items()]
        console().print(table(f"disk use of {workspace.root}", ("kind", "files", "bytes"), rows))


def _show_status(now: Status, every: bool) -> None:
    from mmdata.cli.console import console, facts, table
    from mmdata.inspect.progress import duration
    from mmdata.workspace.layout import PART_STAGES

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
    if now.underway:
        columns = ("part", "stage", "slices", "last one", "left", "who")
        work = [
            (
                one.part,
                one.stage,
                f"{one.slices_done} of {one.slices}",
                f"{duration(one.idle_s)} ago",
                "?" if one.eta_s is None else duration(one.eta_s),
                one.holder or "nobody",
            )
            for one in now.underway
        ]
        out.print(table("under way", columns, work))
    for stuck in now.stuck:
        out.print(f"stuck: {stuck.part}, {stuck.stage}: {stuck.advice}", markup=False)
    if now.eta_s:
        but = f", without {', '.join(now.eta_without)}, of which nothing is finished yet" if now.eta_without else ""
        out.print(f"about {duration(now.eta_s)} of work left, one part at a time{but}", markup=False)
    for path, error in now.unreadable.items():
        out.print(f"unreadable: {path}: {error}", markup=False)
    reasons = [(s, r, n) for s, counts in now.reasons.items() for r, n in sorted(counts.items(), key=lambda i: -i[1])]
    if reasons:
        out.print(table("refused and failed", ("stage", "reason", "rows"), reasons))
    if now.retries_due:
        out.print(f"retries are due in {now.retries_due} parts: mmdata build")
    elif now.next_retry_at:
        out.print(f"the next retries are due at {now.next_retry_at}")
    if now.release is None:
        out.print("no release yet: mmdata build")
    else:
        plain: dict[str, object] = {key: now.release[key] for key in ("release_id", "path", "created_at", "shards")}
        out.print(facts("latest release", plain | now.release["counts"]))


def _show_hosts(worst: FailingHosts) -> None:
    from mmdata.cli.console import console, table

    out = console()
    read = f"{worst.looked_at:,} of {worst.slices:,} slices" if worst.looked_at < worst.slices else "all slices"
    out.print(table(f"hosts that failed most, in {read}", ("host", "error", "rows"), worst.hosts))
    if worst.unreadable:
        out.print(f"{worst.unreadable} slices could not be read: mmdata build")


def explain(
    uid: Annotated[str, typer.Argument(metavar="UID", help="The sample's uid, or its first digits.")],
    config: ConfigOption = CONFIG,
) -> None:
    """Tell a sample's whole story.

    Its row, media, features, selection, place in the shards and the instructions that show it.
    """
    from mmdata.cli.console import console
    from mmdata.inspect.story import explain as tell

    _show_story(console(), tell(*open_corpus(config), uid))


def _show_story(out: Console, story: Story) -> None:
    from mmdata.cli.console import facts, table
    from mmdata.inspect.story import extra_columns

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
