"""The command `status`: how far each part is, what failed, and the latest release."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from mmdata.inspect.corpus_status import Status
    from mmdata.inspect.failing_hosts import FailingHosts

MAX_PARTS = 40


def status(
    config: ConfigOption = CONFIG,
    every: Annotated[bool, typer.Option("--all", help=f"List every part, not only {MAX_PARTS}.")] = False,
    hosts: Annotated[int | None, typer.Option(metavar="N", min=1, help="Show the N hosts with most failures.")] = None,
    disk: Annotated[bool, typer.Option("--disk", help="Also look at every file, and show what uses the disk.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show the parts, what runs or is stuck, failures, and the latest release.

    Shows the parts by stage, how long the remaining work will take, what failed and why, and the retries that are
    due. Reads only stamps, except with --hosts and --disk.
    """
    from mmdata.inspect.corpus_status import corpus_status, slices_with_media, to_json
    from mmdata.inspect.failing_hosts import failing_hosts
    from mmdata.workspace.disk_use import disk_use

    corpus, workspace = open_corpus(config)
    current = corpus_status(corpus, workspace)
    worst = failing_hosts(workspace, slices_with_media(workspace, current), hosts) if hosts else None
    disk_usage = disk_use(workspace) if disk else None
    if as_json:
        typer.echo(to_json(current, worst, disk_usage))
        return
    _show_status(current, every)
    if worst is not None:
        _show_hosts(worst)
    if disk_usage is not None:
        from mmdata.cli.console import console, table

        rows = [(kind, usage.files, usage.bytes) for kind, usage in disk_usage.items()]
        console().print(table(f"disk use of {workspace.root}", ("kind", "files", "bytes"), rows))


def _show_status(current: Status, every: bool) -> None:
    from mmdata.cli.console import console, print_table, table
    from mmdata.inspect.progress import duration
    from mmdata.workspace.layout import PART_STAGES

    out = console()
    ordered = sorted(current.parts, key=lambda part: part.ready)  # parts that need attention come first
    rows = [
        (part.part.name, part.rows, *(part.stages[stage] for stage in PART_STAGES), part.why.partition("\n")[0])
        for part in ordered
    ]
    title = f"{len(rows)} parts, {sum(part.ready for part in ordered)} ready for a release"
    print_table(out, title, ("part", "rows", *PART_STAGES, "why"), rows, None if every else MAX_PARTS, ": --all")
    if current.underway:
        columns = ("part", "stage", "slices", "last slice", "left", "who")
        rows_of_work = [
            (
                work.part,
                work.stage,
                f"{work.slices_done} of {work.slices}",
                f"{duration(work.idle_s)} ago",
                "?" if work.eta_s is None else duration(work.eta_s),
                work.holder or "nobody",
            )
            for work in current.underway
        ]
        out.print(table("running", columns, rows_of_work))
    for stuck in current.stuck:
        out.print(f"stuck: {stuck.part}, {stuck.stage}: {stuck.advice}", markup=False)
    if current.eta_s:
        without = ", ".join(current.eta_without)
        exception = f", without {without}, which have finished nothing yet" if without else ""
        out.print(f"about {duration(current.eta_s)} of work left, one part at a time{exception}", markup=False)
    for path, error in current.unreadable.items():
        out.print(f"unreadable: {error if path in error else f'{path}: {error}'}", markup=False)
    for warning in (*current.idle_rules, *current.balance):
        out.print(f"warning: {warning}", markup=False)
    reasons = [(stage, *item) for stage, counts in current.reasons.items() for item in Counter(counts).most_common()]
    if reasons:
        out.print(table("refused and failed", ("stage", "reason", "rows"), reasons))
    if current.paused_hosts:
        fields = ("host", "reason", "since", "until", "times")
        pauses = [(pause.host, pause.reason, pause.since, pause.until, pause.times) for pause in current.paused_hosts]
        out.print(table("hosts that block us and are left alone; one URL tries each after its time", fields, pauses))
    if current.retries_due:
        out.print(f"retries are due in {current.retries_due} parts: run mmdata build")
    elif current.next_retry_at:
        out.print(f"the next retries are due at {current.next_retry_at}")
    _show_latest_release(current)


def _show_latest_release(current: Status) -> None:
    from mmdata.cli.console import console, facts

    out = console()
    if current.hold is not None:
        out.print(f"held: {current.hold['why']}", markup=False)
    if current.release is None:
        out.print("no release yet: mmdata build")
        return
    shown = {key: current.release.get(key) for key in ("release_id", "path", "created_at", "shards")}
    out.print(facts("latest release", shown | current.release.get("counts", {})))
    if problem := current.release["problem"]:
        out.print(f"the latest release is damaged: {problem}", markup=False)


def _show_hosts(worst: FailingHosts) -> None:
    from mmdata.cli.console import console, table

    out = console()
    read = f"{worst.looked_at:,} of {worst.slices:,} slices" if worst.looked_at < worst.slices else "all slices"
    out.print(table(f"hosts that failed most, in {read}", ("host", "error", "rows"), worst.hosts))
    if worst.unreadable:
        out.print(f"{worst.unreadable} slices could not be read: mmdata build")
