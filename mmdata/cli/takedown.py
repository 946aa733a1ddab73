"""The command that forgets samples: `forget`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdata.config import Corpus
    from mmdata.optout.forget_log import Entry
    from mmdata.optout.selectors import Selector
    from mmdata.takedown.find import Found
    from mmdata.takedown.near import Near
    from mmdata.workspace.layout import Workspace

SHOWN = 40
DISTANCE = 0.05


def forget(
    config: ConfigOption = CONFIG,
    url: Annotated[list[str] | None, typer.Option(help="What lies at this URL; http and https are the same.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="All of this host and its subdomains.")] = None,
    uid: Annotated[list[str] | None, typer.Option(help="One sample, by its uid.")] = None,
    sha256: Annotated[list[str] | None, typer.Option(help="A file, wherever it came from.")] = None,
    list_file: Annotated[
        list[Path] | None, typer.Option("--list", help="A file with any of these: text, a line each; .csv, .parquet.")
    ] = None,
    near: Annotated[
        bool | None,
        typer.Option("--near/--no-near", help="Forget near-duplicates, too; or don't look for them. Default: list."),
    ] = None,
    distance: Annotated[float, typer.Option(min=0, max=1, help="1 - cosine of embeddings that is near.")] = DISTANCE,
    reason: Annotated[str, typer.Option(help="Why; kept in the log, so name nobody.")] = "",
    by: Annotated[str | None, typer.Option(help="Who signs for it; default: your user name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is found.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the releases that hold what was forgotten, but for the latest.")
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Print the log of what was forgotten, and check its chain.")
    ] = False,
) -> None:
    """Forget samples, for good.

    Their media, words and measures leave every part; what stays is the uid, a reason, and hashes that keep them out.
    Old releases hold them until they are deleted: the command says which.
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
        typer.echo(f"finished what entry {number} of the log had begun")
    if finished:
        _delete_runs(workspace)
    if selectors:
        _forget(corpus, workspace, selectors, near, distance, signer, reason, dry_run=dry_run, yes=yes)
    elif not finished and not purge:
        raise UserError("nothing to forget. Remedy: give --url, --domain, --uid, --sha256 or --list; or --log, --purge")
    if not dry_run:
        _old_releases(corpus, workspace, config, purge=purge)


def _selectors(given: dict[str, list[str] | None], lists: Sequence[Path]) -> list[Selector]:
    from mmdata.config import OptOutList
    from mmdata.errors import UserError
    from mmdata.optout.lists import read_list
    from mmdata.optout.selectors import selector

    found = []
    for kind, texts in given.items():
        for text in texts or []:
            try:
                found.append(selector(kind, text))  # type: ignore[arg-type]
            except UserError as error:
                raise UserError(f"--{kind}: {error}") from None
    for path in lists:
        found += read_list(OptOutList(path=str(path)))
    return found


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
    from mmdata.takedown.forget import forget as forget_found
    from mmdata.takedown.forget import is_forgotten
    from mmdata.takedown.near import find_near, hits_of

    found = find(workspace, selectors)
    _show_found(found)
    near: list[Near] = []
    if with_near is not False and found.hits:
        try:
            near = find_near(workspace, found, corpus.select.dedup.phash_bits, distance)
        except UserError:
            if with_near:
                raise
            typer.echo("too many to look for near-duplicates of each")
    _show_near(near, included=bool(with_near))
    if dry_run:
        return
    if not found.hits and is_forgotten(workspace, selectors):
        typer.echo("forgotten already; nothing is written")
        return
    if not yes:
        typer.confirm("forget them? This cannot be undone", abort=True)
    entry = forget_found(
        corpus, workspace, found, by=by, reason=reason, near=hits_of(near) if with_near else (), progress=_progress
    )
    _show_entry(entry)
    _delete_runs(workspace)


def _delete_runs(workspace: Workspace) -> None:
    """Take what Dagster keeps of the samples of parts that were forgotten from."""
    from mmdata.optout.forget_log import read_log
    from pipelines.home import dagster_home
    from pipelines.run_removal import delete_runs

    parts = {part for entry in read_log(workspace) for part in entry.parts}
    if parts and (dagster_home(workspace) / "history").exists():
        typer.echo(f"deleted {delete_runs(workspace, parts)} runs from Dagster's log, which may show them")


def _progress(stage: str, done: int, total: int) -> None:
    if done and (done % 100 == 0 or done == total):
        typer.echo(f"  {stage}: {done:,} of {total:,} parts")


def _show_found(found: Found) -> None:
    from mmdata.cli.console import console, table

    parts = found.by_part()
    out = console()
    typer.echo(f"found {len(found.uids):,} samples in {len(parts):,} parts, for {len(found.selectors):,} selectors")
    if found.before:
        typer.echo(f"{found.before:,} samples more are forgotten or left out already")
    if parts:
        out.print(table("", ("part", "samples"), list(parts.items())[:SHOWN]))
        if len(parts) > SHOWN:
            out.print(f"… and {len(parts) - SHOWN} parts more")
    if found.releases:
        out.print(table("", ("release", "samples"), found.releases.items()))


def _show_near(near: Sequence[Near], *, included: bool) -> None:
    from mmdata.cli.console import console, table

    if not near:
        return
    rows = [(one.hit.uid, one.how, one.distance, one.of, one.source, one.hit.part) for one in near]
    verb = "are forgotten, too" if included else "stay; --near forgets them, too"
    console().print(
        table(
            f"\n{len(near):,} near-duplicates {verb}", ("uid", "by", "distance", "of", "source", "part"), rows[:SHOWN]
        )
    )
    if len(rows) > SHOWN:
        typer.echo(f"… and {len(rows) - SHOWN:,} more")


def _show_entry(entry: Entry) -> None:
    typer.echo(f"forgotten: {entry.counts['samples']:,} samples in {len(entry.parts):,} parts")
    typer.echo(f"entry {entry.number} of the log, signed for by {entry.by}, digest {entry.digest}")


def _old_releases(corpus: Corpus, workspace: Workspace, config: Path, *, purge: bool) -> None:
    """Say which releases still hold what was forgotten, after deleting those that may go."""
    from mmdata.takedown.forget import purge as purge_releases
    from mmdata.takedown.forget import still_held

    if purge:
        gone = purge_releases(corpus, workspace)
        typer.echo(f"deleted {len(gone.releases)} releases and {len(gone.shards)} shards: {', '.join(gone.releases)}")
    for release, why in still_held(workspace).items():
        remedy = {
            "latest": f"is the latest: mmdata build -c {config}, then mmdata forget -c {config} --purge",
            "pinned": f"is pinned: mmdata unpin {release} -c {config}, then mmdata forget -c {config} --purge",
        }.get(why, f"goes with mmdata gc -c {config} when its time has come, or now with --purge")
        typer.echo(f"release {release} still holds or shows it; it {remedy}")


def _show_log(workspace: Workspace) -> None:
    from mmdata.cli.console import console, table
    from mmdata.optout.forget_log import read_log
    from mmdata.optout.hashes import forgotten_hashes

    entries = read_log(workspace)
    forgotten_hashes(workspace)  # each table is compared with what was signed
    rows = [
        (
            one.number,
            one.at,
            one.by,
            one.what if one.of is None else f"{one.what} {one.of}",
            ", ".join(f"{count} {kind}" for kind, count in one.selectors.items()),
            one.counts.get("samples", ""),
            ", ".join(one.releases),
            one.reason,
        )
        for one in entries
    ]
    names = ("", "at", "by", "", "asked for", "samples", "releases", "reason")
    console().print(table(f"{len(entries)} entries; the chain is whole", names, rows))
    if entries:
        typer.echo(f"digest of the last: {entries[-1].digest}")
