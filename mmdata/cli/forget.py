"""The command `forget`: removes samples from every part, for good."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdata.config import Corpus
    from mmdata.optout.selectors import Selector
    from mmdata.takedown.find import Matches
    from mmdata.takedown.near import Near
    from mmdata.workspace.layout import Workspace

MAX_LINES = 40


def forget(
    config: ConfigOption = CONFIG,
    url: Annotated[list[str] | None, typer.Option(help="Everything from this URL, by http or https.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Everything from this host and its subdomains.")] = None,
    uid: Annotated[list[str] | None, typer.Option(help="The sample with this uid.")] = None,
    sha256: Annotated[list[str] | None, typer.Option(help="The file with this SHA-256, from any URL.")] = None,
    list_file: Annotated[
        list[Path] | None, typer.Option("--list", help="A list of these: text, .csv, .parquet.")
    ] = None,
    near: Annotated[
        bool | None,
        typer.Option(
            "--near/--no-near",
            help="Forget near-duplicates too, or do not search for them; by default they are listed.",
        ),
    ] = None,
    distance: Annotated[float, typer.Option(min=0, max=1, help="Largest cosine distance of a near-duplicate.")] = 0.05,
    reason: Annotated[str, typer.Option(help="The reason; it is kept in the log, so name nobody.")] = "",
    by: Annotated[str | None, typer.Option(help="Who is responsible; the default is your user name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be forgotten.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete old releases that contain forgotten samples.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Print and check the log of what was forgotten.")] = False,
) -> None:
    """Remove samples for good.

    Deletes their media, texts and measurements from every part. Keeps only the uid, a reason, and hashes that prevent
    a new download. Old releases contain the samples until they are deleted; the command lists these releases.
    """
    from mmdata.errors import UserError
    from mmdata.takedown.forget import finish

    corpus, workspace = open_corpus(config)
    if log:
        _show_log(workspace)
        return
    signer = getpass.getuser() if by is None else by
    selectors = _selectors({"url": url, "domain": domain, "uid": uid, "sha256": sha256}, list_file or [])
    finished = [] if dry_run else finish(corpus, workspace, by=signer)
    for number in finished:
        typer.echo(f"finished the work that entry {number} of the log had begun")
    if finished:
        _delete_runs(workspace)
    if selectors:
        _forget(corpus, workspace, selectors, near, distance, signer, reason, dry_run=dry_run, yes=yes)
    elif not finished and not purge:
        raise UserError(
            "nothing to forget is given. Remedy: give --url, --domain, --uid, --sha256 or --list; or --log, --purge"
        )
    if not dry_run:
        _old_releases(corpus, workspace, config, purge=purge)


def _selectors(given: dict[str, list[str] | None], lists: Sequence[Path]) -> list[Selector]:
    from mmdata.config import OptOutList
    from mmdata.errors import UserError
    from mmdata.optout.lists import read_list
    from mmdata.optout.selectors import selector_of

    selectors = []
    for kind, texts in given.items():
        for text in texts or []:
            try:
                selectors.append(selector_of(kind, text))  # type: ignore[arg-type]
            except UserError as error:
                raise UserError(f"--{kind}: {error}") from None
    for path in lists:
        selectors += read_list(OptOutList(path=str(path)))
    return selectors


def _forget(
    corpus: Corpus,
    workspace: Workspace,
    selectors: Sequence[Selector],
    with_near: bool | None,
    distance: float,
    by: str,
    reason: str,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    from mmdata.errors import UserError
    from mmdata.takedown.find import find
    from mmdata.takedown.forget import forget as forget_matches
    from mmdata.takedown.forget import is_forgotten
    from mmdata.takedown.near import find_near, hits_of

    matches = find(workspace, selectors)
    _show_matches(matches)
    near: list[Near] = []
    if with_near is not False and matches.hits:
        try:
            near = find_near(workspace, matches, corpus.select.dedup.phash_bits, distance)
        except UserError:
            if with_near:
                raise
            typer.echo("these are too many samples to search for near-duplicates of each")
    _show_near(near, included=bool(with_near))
    if dry_run:
        return
    if not matches.hits and is_forgotten(workspace, selectors):
        typer.echo("these are forgotten already; nothing is written")
        return
    if not yes:
        typer.confirm("forget them? This cannot be undone", abort=True)
    entry = forget_matches(
        corpus, workspace, matches, by=by, reason=reason, near=hits_of(near) if with_near else (), progress=_progress
    )
    typer.echo(f"forgotten: {entry.counts['samples']:,} samples in {len(entry.parts):,} parts")
    typer.echo(f"entry {entry.number} of the log, signed for by {entry.by}, digest {entry.digest}")
    _delete_runs(workspace)


def _delete_runs(workspace: Workspace) -> None:
    """Delete the runs in Dagster's log that may show samples of the parts that lost some."""
    from mmdata.optout.forget_log import read_log
    from pipelines.home import dagster_home
    from pipelines.instance import delete_runs

    parts = {part for entry in read_log(workspace) for part in entry.parts}
    if parts and (dagster_home(workspace) / "history").exists():
        typer.echo(f"deleted {delete_runs(workspace, parts)} runs from Dagster's log, which may show them")


def _progress(stage: str, done: int, total: int) -> None:
    if done and (done % 100 == 0 or done == total):
        typer.echo(f"  {stage}: {done:,} of {total:,} parts")


def _show_matches(matches: Matches) -> None:
    from mmdata.cli.console import console, print_table, table

    parts = matches.by_part()
    out = console()
    typer.echo(f"found {len(matches.uids):,} samples in {len(parts):,} parts, for {len(matches.selectors):,} selectors")
    if matches.before:
        typer.echo(f"{matches.before:,} further samples are forgotten or left out already")
    if parts:
        print_table(out, "", ("part", "samples"), list(parts.items()), MAX_LINES)
    if matches.releases:
        out.print(table("", ("release", "samples"), matches.releases.items()))


def _show_near(near: Sequence[Near], *, included: bool) -> None:
    from mmdata.cli.console import console, print_table

    if not near:
        return
    rows = [(copy.hit.uid, copy.how, copy.distance, copy.of, copy.source, copy.hit.part) for copy in near]
    verb = "are forgotten too" if included else "stay; --near forgets them too"
    columns = ("uid", "by", "distance", "of", "source", "part")
    print_table(console(), f"\n{len(near):,} near-duplicates {verb}", columns, rows, MAX_LINES)


def _old_releases(corpus: Corpus, workspace: Workspace, config: Path, *, purge: bool) -> None:
    """List the releases that still contain forgotten samples; with `purge`, delete those that may be deleted first."""
    from mmdata.takedown.forget import purge as purge_releases
    from mmdata.takedown.forget import still_held

    if purge:
        deleted = purge_releases(corpus, workspace)
        typer.echo(
            f"deleted {len(deleted.releases)} releases and {len(deleted.shards)} shards: {', '.join(deleted.releases)}"
        )
    for release, why in still_held(workspace).items():
        remedy = {
            "latest": f"is the latest: mmdata build -c {config}, then mmdata forget -c {config} --purge",
            "pinned": f"is pinned: mmdata unpin {release} -c {config}, then mmdata forget -c {config} --purge",
        }.get(why, f"is deleted by mmdata gc -c {config} when it is old, or now with --purge")
        typer.echo(f"release {release} still contains or shows them; it {remedy}")


def _show_log(workspace: Workspace) -> None:
    from mmdata.cli.console import console, table
    from mmdata.optout.forget_log import read_log
    from mmdata.optout.hashes import forgotten_hashes

    entries = read_log(workspace)
    forgotten_hashes(workspace)  # this compares each table with its digest in the log
    rows = [
        (
            entry.number,
            entry.at,
            entry.by,
            entry.what if entry.of is None else f"{entry.what} {entry.of}",
            ", ".join(f"{count} {kind}" for kind, count in entry.selectors.items()),
            entry.counts.get("samples", ""),
            ", ".join(entry.releases),
            entry.reason,
        )
        for entry in entries
    ]
    names = ("", "at", "by", "", "selectors", "samples", "releases", "reason")
    console().print(table(f"{len(entries)} entries; nobody changed them", names, rows))
    if entries:
        typer.echo(f"digest of the last: {entries[-1].digest}")
