"""Commands about the releases of a corpus: `releases`, `diff`, `pin`, `unpin`, `rollback`, `gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from mmdata.config import Corpus
    from mmdata.releases.collect import Garbage
    from mmdata.releases.manifest import Release
    from mmdata.workspace.layout import Workspace

IdArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="A release's id, or its first digits.")]
NoteOption = Annotated[str, typer.Option(help="Why: kept with it, and shown in the list.")]
MB = 1e6


def releases(config: ConfigOption = CONFIG) -> None:
    """List the releases.

    The newest first: what each holds, and how many megabytes of shards would go with it.
    """
    from mmdata.cli.console import console, table
    from mmdata.releases.listing import list_releases

    _, workspace = open_corpus(config)
    rows = [
        (
            one.release_id,
            one.created_at,
            one.parent or "",
            one.samples,
            one.shards,
            round(one.bytes / MB, 1),
            round(one.own_bytes / MB, 1),
            ", ".join(
                word
                for word, is_so in (
                    ("latest", one.is_latest),
                    ("pinned", one.is_pinned),
                    ("rolled back", one.is_rolled_back),
                )
                if is_so
            ),
            one.note,
        )
        for one in list_releases(workspace)
    ]
    names = ("release", "made at", "parent", "samples", "shards", "MB", "MB of its own", "", "note")
    console().print(table(f"{len(rows)} releases", names, rows))


def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A release: its folder, its id, or the id's first digits.")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one; `latest` is the latest.")] = "latest",
    config: ConfigOption = CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots there.")] = None,
) -> None:
    """Compare two releases.

    Samples added, dropped and why, copies, the mix, the scores, and how many shards are new.
    """
    import json

    from mmdata.cli.console import console, table
    from mmdata.releases.changes import change_line, change_tables
    from mmdata.releases.diff import diff_releases

    found = diff_releases(_release(before, config), _release(after, config))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        out = console()
        told = found.to_json(20)
        out.print(f"{found.before} -> {found.after}: {change_line(told)}", markup=False)
        scores = found.scores
        if scores.stability is not None:
            means = f"mean {scores.mean_before:.4f} -> {scores.mean_after:.4f}"
            out.print(f"scores: {means}, population stability index {scores.stability:.3f}", markup=False)
        for name, rows in change_tables(told).items():
            if rows:
                out.print(
                    table(
                        f"\n{name.replace(' since the parent', '')}",
                        list(rows[0]),
                        [list(row.values()) for row in rows],
                    )
                )
    if html is not None:
        from upath import UPath

        from mmdata.report.diff_page import comparison_page
        from mmdata.storage.atomic import publish_bytes

        publish_bytes(UPath(html), comparison_page(found).encode("utf-8", "xmlcharrefreplace"))
        typer.echo(f"wrote {html}", err=as_json)


def pin(release: IdArgument, config: ConfigOption = CONFIG, note: NoteOption = "") -> None:
    """Keep a release for good: `mmdata gc` never takes it."""
    from mmdata.releases.pins import pin as keep

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "pin"):
        typer.echo(f"pinned {keep(workspace, release, note)}")


def unpin(release: IdArgument, config: ConfigOption = CONFIG) -> None:
    """Let a release go with the others when its time has come."""
    from mmdata.releases.pins import unpin as let_go

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "unpin"):
        typer.echo(f"unpinned {let_go(workspace, release)}")


def rollback(release: IdArgument, config: ConfigOption = CONFIG, note: NoteOption = "") -> None:
    """Make an earlier release the latest.

    Those after it stay where they are, and do not become the latest again: only a change of the corpus makes a new
    one. To go forward again, give the later release.
    """
    from mmdata.releases.pins import roll_back

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "rollback"):
        left = roll_back(workspace, release, note)
    typer.echo(f"the latest release is {workspace.latest()}; rolled back: {', '.join(left) or 'none'}")


def gc(
    config: ConfigOption = CONFIG,
    keep: Annotated[int | None, typer.Option(min=1, help="Newest releases to keep; default: releases.keep.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete old releases, and what no release needs.

    The latest, the pinned and the newest releases stay, and every shard that one of them names.
    """
    from mmdata.releases.collect import collect_garbage

    corpus, workspace = open_corpus(config)
    wanted = corpus.releases.keep if keep is None else keep
    garbage = collect_garbage(workspace, wanted, dry_run=dry_run, wait_s=corpus.engine.wait_s)
    for line in _told(garbage, "would go" if dry_run else "deleted"):
        typer.echo(line)


def _release(named: str, config: Path) -> Release:
    """A release by its place, or by its id in the corpus's workspace."""
    from mmdata.cli.release import find_release, is_path
    from mmdata.releases.manifest import open_release
    from mmdata.releases.pins import named_release

    if is_path(named) or named == "latest":
        return open_release(find_release(named, config))
    return named_release(open_corpus(config)[1], named)


def _told(garbage: Garbage, verb: str) -> Iterator[str]:
    counts = garbage.counts()
    yield f"{verb}: {garbage.bytes / MB:,.1f} MB in all"
    for name, ids in (("releases", garbage.releases), ("begun and never published", garbage.abandoned)):
        if ids:
            yield f"  {name}: {', '.join(ids)}"
    files = {"shards": "shards", "tars": "tars of media that no table addresses", "leftovers": "half-written files"}
    yield from (f"  {counts[name]:,} {text}" for name, text in files.items() if counts[name])
    if garbage.busy:
        yield f"  left alone, since a build works on them: {', '.join(garbage.busy)}"


def _alone(corpus: Corpus, workspace: Workspace, what: str) -> AbstractContextManager[object]:
    """While no build works on a release."""
    from mmdata.workspace.lease import leased

    return leased(workspace, "release", what, wait_s=corpus.engine.wait_s)
