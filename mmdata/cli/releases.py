"""Commands about the releases of a corpus: `releases`, `verify`, `report`, `diff`, `pin`, `unpin`, `rollback`, `gc`."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, ReleaseArgument, find_release, is_path, open_corpus, train_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from mmdata.config import Corpus
    from mmdata.releases.collect import Garbage
    from mmdata.releases.manifest import Release
    from mmdata.workspace.layout import Workspace

IdArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="The id of a release, or its first digits.")]
NoteOption = Annotated[str, typer.Option(help="The reason; it is shown in the list of releases.")]
BYTES_PER_MB = 1e6
MARKS = ("latest", "pinned", "rolled back", "held")


def releases(config: ConfigOption = CONFIG) -> None:
    """List the releases.

    The newest release comes first. Shows what each contains, and how many megabytes of shards only that release has.
    """
    from mmdata.cli.console import console, table
    from mmdata.releases.listing import list_releases

    _, workspace = open_corpus(config)
    rows = [
        (
            release.release_id,
            release.created_at,
            release.parent or "",
            release.samples,
            release.shards,
            round(release.bytes / BYTES_PER_MB, 1),
            round(release.own_bytes / BYTES_PER_MB, 1),
            ", ".join(compress(MARKS, (release.is_latest, release.is_pinned, release.is_rolled_back, release.is_held))),
            release.note,
        )
        for release in list_releases(workspace)
    ]
    names = ("release", "made at", "parent", "samples", "shards", "MB", "MB of its own", "", "note")
    console().print(table(f"{len(rows)} releases", names, rows))


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
    console().print(f"{folder}: sound; {summary_line(verify_release(folder, decode=decode))}", markup=False)


def report(release: ReleaseArgument = "latest", config: ConfigOption = CONFIG) -> None:
    """Write report.html of a release again.

    It shows the captions of the models that were evaluated on the release, too.
    """
    from mmdata.inspect.training_runs import model_folders
    from mmdata.releases.manifest import open_release
    from mmdata.report.stage import report_release

    opened = open_release(find_release(release, config))
    models = model_folders(opened.workspace, opened.id, train_output(release, config))
    typer.echo(report_release(opened.folder, models).paths["report"])


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="The folder or id of a release, or how the id begins.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The release to compare it with.")] = "latest",
    config: ConfigOption = CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with charts to this file.")] = None,
) -> None:
    """Compare two releases.

    Compares samples (added, dropped and why), copies, the mix, the scores, and the shards.
    """
    import json

    from mmdata.cli.console import console, table
    from mmdata.releases.changes import change_line, change_tables
    from mmdata.releases.diff import diff_releases

    difference = diff_releases(_release(before, config), _release(after, config))
    if as_json:
        typer.echo(json.dumps(difference.to_json(), indent=1, ensure_ascii=False))
    else:
        out = console()
        changes = difference.to_json(20)
        out.print(f"{difference.before} -> {difference.after}: {change_line(difference.counts)}", markup=False)
        scores = difference.scores
        if scores.stability is not None:
            means = f"mean {scores.mean_before:.4f} -> {scores.mean_after:.4f}"
            out.print(f"scores: {means}, population stability index {scores.stability:.3f}", markup=False)
        for name, rows in change_tables(changes).items():
            if rows:
                title = f"\n{name.replace(' since the parent', '')}"
                out.print(table(title, list(rows[0]), [list(row.values()) for row in rows]))
    if html is not None:
        from upath import UPath

        from mmdata.report.diff_page import comparison_page
        from mmdata.storage.atomic import publish_bytes

        publish_bytes(UPath(html), comparison_page(difference).encode("utf-8", "xmlcharrefreplace"))
        typer.echo(f"wrote {html}", err=as_json)


def pin(release: IdArgument, config: ConfigOption = CONFIG, note: NoteOption = "") -> None:
    """Keep a release: `mmdata gc` never deletes it."""
    from mmdata.releases.pins import pin as keep

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "pin"):
        typer.echo(f"pinned {keep(workspace, release, note)}")


def unpin(release: IdArgument, config: ConfigOption = CONFIG) -> None:
    """Let `mmdata gc` delete a release again when it is old."""
    from mmdata.releases.pins import unpin as let_go

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "unpin"):
        typer.echo(f"unpinned {let_go(workspace, release)}")


def rollback(release: IdArgument, config: ConfigOption = CONFIG, note: NoteOption = "") -> None:
    """Make another release the latest: an earlier one, or one that is held.

    Later releases are kept, but do not become the latest by themselves: only a change of the corpus makes a new
    release. To go forward again, give the later release.
    """
    from mmdata.releases.pins import roll_back

    corpus, workspace = open_corpus(config)
    with _alone(corpus, workspace, "rollback"):
        rolled_back = roll_back(workspace, release, note)
    typer.echo(f"the latest release is {workspace.latest()}; rolled back: {', '.join(rolled_back) or 'none'}")


def gc(
    config: ConfigOption = CONFIG,
    keep: Annotated[int | None, typer.Option(min=1, help="Releases to keep; default: releases.keep.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
) -> None:
    """Delete old releases and files that no release needs.

    Keeps the latest, the pinned and the newest releases, with all their shards.
    """
    from mmdata.releases.collect import collect_garbage

    corpus, workspace = open_corpus(config)
    wanted = corpus.releases.keep if keep is None else keep
    garbage = collect_garbage(workspace, wanted, dry_run=dry_run, wait_s=corpus.engine.wait_s)
    for line in _lines(garbage, "would be deleted" if dry_run else "deleted"):
        typer.echo(line)


def _release(path_or_id: str, config: Path) -> Release:
    """Open a release, given its path, or its id in the workspace of the corpus."""
    from mmdata.releases.manifest import open_release
    from mmdata.releases.pins import named_release

    if is_path(path_or_id) or path_or_id == "latest":
        return open_release(find_release(path_or_id, config))
    return named_release(open_corpus(config)[1], path_or_id)


def _lines(garbage: Garbage, verb: str) -> Iterator[str]:
    counts = garbage.counts()
    yield f"{verb}: {garbage.bytes / BYTES_PER_MB:,.1f} MB in all"
    for name, ids in (("releases", garbage.releases), ("releases that were never published", garbage.abandoned)):
        if ids:
            yield f"  {name}: {', '.join(ids)}"
    files = {
        "shards": "shards",
        "tars": "tars of media that no table uses",
        "scores": "kept scores that are not in use",
        "leftovers": "half-written files",
    }
    yield from (f"  {counts[name]:,} {text}" for name, text in files.items() if counts[name])
    if garbage.busy:
        yield f"  kept, because a build works on them: {', '.join(garbage.busy)}"


def _alone(corpus: Corpus, workspace: Workspace, purpose: str) -> AbstractContextManager[object]:
    """Hold the lease of the release, so that no build works on it meanwhile."""
    from mmdata.workspace.lease import leased

    return leased(workspace, "release", purpose, wait_s=corpus.engine.wait_s)
