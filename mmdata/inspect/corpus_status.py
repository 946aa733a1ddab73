"""The state of a corpus: parts by stage, failures and their reasons, time left, and the latest release."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmdata.config import Corpus
from mmdata.config.presets import preset_warnings
from mmdata.display import without_credentials
from mmdata.engine.freshness import is_due, part_due_again, plan_part
from mmdata.errors import DataError
from mmdata.inspect.progress import Underway, corpus_eta_s, corpus_rates, underway
from mmdata.releases.holds import Hold, read_hold
from mmdata.releases.manifest import DAMAGED_REMEDY, find_manifest
from mmdata.select.balance_cost import cut_warnings
from mmdata.select.idle_rules import idle_rules
from mmdata.stage import add_counts
from mmdata.storage.atomic import is_local
from mmdata.workspace.attempts import Attempt, last_attempts
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, PartStamp, Workspace
from mmdata.workspace.paused_hosts import Pause, read_pauses

if TYPE_CHECKING:
    from mmdata.inspect.failing_hosts import FailingHosts
    from mmdata.workspace.disk_use import DiskUse

OBJECT_STORE_READERS = 32

State = Literal["done", "waiting", "started", "failed", "refused"]
"""`waiting`: not done, or stale. `started`: a process works on it, or died at work. `refused`: done, but not accepted
into releases."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part and the state of its stages.

    Args:
        stages: stage -> state.
        why: what it waits for, or why it failed; empty if it is up to date.
        next_retry_at: UTC ISO time of the first retry of a failed URL; None if none is planned.
    """

    part: Part
    rows: int
    stages: Mapping[str, State]
    why: str
    next_retry_at: str | None

    @property
    def ready(self) -> bool:
        return all(state == "done" for state in self.stages.values())


@dataclass(frozen=True, slots=True)
class Status:
    """A corpus at this moment.

    Args:
        reasons: stage -> reason -> rows that were refused or failed, over all parts.
        retries_due: number of parts whose retries are due now.
        next_retry_at: UTC ISO time of the first future retry; None if none is planned.
        paused_hosts: the hosts that are left alone because they blocked us; see `Pause`.
        unreadable: source file -> error.
        idle_rules: warnings about rules of the selection that judge nothing, or not what their preset judged.
        balance: warnings about what balance dropped from the latest release.
        release: the latest release's manifest without its long lists; None before the first release.
        hold: the newest release, if it is held, and why; None if it is not.
        underway: stages that have begun and not ended.
        eta_s: seconds until every part is up to date, one part at a time; None if no slice was ever finished.
        eta_without: sources and stages that the estimate leaves out, because it has no finished slice of them.
    """

    parts: Sequence[PartStatus]
    reasons: Mapping[str, Mapping[str, int]]
    retries_due: int
    next_retry_at: str | None
    paused_hosts: Sequence[Pause]
    unreadable: Mapping[str, str]
    idle_rules: Sequence[str]
    balance: Sequence[str]
    release: Mapping[str, Any] | None
    hold: Hold | None
    underway: Sequence[Underway]
    eta_s: float | None
    eta_without: Sequence[str]

    @property
    def stuck(self) -> list[Underway]:
        """The stages under way that a person should look at."""
        return [stage for stage in self.underway if stage.advice]


def corpus_status(corpus: Corpus, workspace: Workspace, now: datetime | None = None) -> Status:
    """The state of every part of a corpus, from its stamps. Reads a few slice stamps to estimate the time left."""
    now = now or datetime.now(UTC)
    once = _ReadOnce(str(workspace.root))
    catalog = workspace.catalog()
    names = {source.name for source in corpus.sources}
    configured = [part for part in catalog.live_parts() if part.source in names]
    once.read([part.name for part in configured])
    parts = [part_status(corpus, once, part) for part in configured]
    done: dict[tuple[str, PartStage], list[tuple[str, int]]] = {}
    begun: list[tuple[Part, PartStage, Attempt]] = []
    rows_left: Counter[tuple[str, PartStage]] = Counter()
    for status in parts:
        part = status.part
        for stage in PART_STAGES:
            key, stamp = (part.source, stage), once.part_stamp(part.name, stage)
            if stamp is not None:  # a stale stamp has usable times, too
                done.setdefault(key, []).append((part.name, len(stamp.slices)))
            if status.stages[stage] not in ("done", "refused"):
                rows_left[key] += status.rows
            attempt = once.attempts(part.name).get(stage)
            if status.stages[stage] == "started" and attempt is not None:
                begun.append((part, stage, attempt))
    rates = corpus_rates(workspace, done)
    stages_underway = underway(corpus, workspace, begun, rates, now)
    rows_of = {status.part.name: (status.part.source, status.rows) for status in parts}
    for each in stages_underway:
        source, rows = rows_of[each.part]
        rows_left[source, each.stage] -= rows * each.slices_done // max(each.slices, 1)
    eta_s, without = corpus_eta_s(rows_left, rates, corpus.engine.workers)
    rows_stamps = {
        status.part: stamp
        for status in parts
        if status.stages["rows"] == "done" and (stamp := once.part_stamp(status.part.name, "rows")) is not None
    }
    release = latest_release(workspace)
    retries = [status.next_retry_at for status in parts if status.next_retry_at is not None]
    return Status(
        parts=parts,
        reasons={
            stage: add_counts(
                stamp.reasons for status in parts if (stamp := once.part_stamp(status.part.name, stage)) is not None
            )
            for stage in PART_STAGES
        },
        retries_due=sum(is_due(at, now) for at in retries),
        next_retry_at=min((at for at in retries if not is_due(at, now)), default=None),
        paused_hosts=list(read_pauses(workspace).values()),
        unreadable={
            without_credentials(path): str(entry.get("error") or "unreadable")
            for path, entry in catalog.files.items()
            if entry.get("status") == "unreadable"
        },
        idle_rules=[
            *idle_rules(corpus.select.filter, rows_stamps, corpus.score),
            *preset_warnings(corpus.select.filter, corpus.score),
        ],
        balance=cut_warnings(release.get("counts", {}), release.get("reasons", {})) if release else [],
        release=release,
        hold=read_hold(workspace),
        underway=stages_underway,
        eta_s=eta_s,
        eta_without=without,
    )


class _ReadOnce(Workspace):
    """A workspace that reads each stamp of its parts once; on an object store, many at a time."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._stamps: dict[tuple[str, PartStage], PartStamp | None] = {}
        self._attempts: dict[str, dict[PartStage, Attempt]] = {}

    def read(self, parts: Sequence[str]) -> None:
        """Read the stamps of parts ahead, in parallel, if they are on an object store."""
        if is_local(self.root):
            return
        with ThreadPoolExecutor(OBJECT_STORE_READERS) as pool:
            for _ in pool.map(self._read, parts):
                pass

    def _read(self, part: str) -> None:
        self.attempts(part)
        for stage in PART_STAGES:
            self.part_stamp(part, stage)

    def part_stamp(self, part: str, stage: PartStage) -> PartStamp | None:
        if (part, stage) not in self._stamps:
            self._stamps[part, stage] = super().part_stamp(part, stage)
        return self._stamps[part, stage]

    def attempts(self, part: str) -> dict[PartStage, Attempt]:
        if part not in self._attempts:
            self._attempts[part] = last_attempts(self, part) if self._may_have_attempts(part) else {}
        return self._attempts[part]

    def _may_have_attempts(self, part: str) -> bool:
        """Listing the folder once is cheaper than asking for three files that are hardly ever there."""
        if not is_local(self.root):
            return True
        try:
            return any(path.name.endswith(".attempt.json") for path in Path(self.part_dir(part).path).iterdir())
        except FileNotFoundError:
            return False


def part_status(corpus: Corpus, workspace: _ReadOnce, part: Part) -> PartStatus:
    """The state of one part."""
    plan = plan_part(corpus, workspace, part, with_retries=False)  # due retries are reported separately
    attempts = workspace.attempts(part.name)
    stages: dict[str, State] = {}
    notes: list[str] = []
    for stage in PART_STAGES:
        stamp, attempt = workspace.part_stamp(part.name, stage), attempts.get(stage)
        if stage not in plan.stale:
            stages[stage] = "done" if stamp is None or stamp.accepted else "refused"
            if stamp is not None and not stamp.accepted:
                notes.append(f"{stage}: {stamp.reason}")
        elif attempt is None:
            stages[stage] = "waiting"
        elif attempt.error is None:
            stages[stage] = "started"
            notes.append(f"{stage}: started {attempt.started_at}")
        else:
            stages[stage] = "failed"
            notes.append(f"{stage}: failed {attempt.tries}x: {attempt.error}")
    media = workspace.part_stamp(part.name, "media")
    retry = None
    if media is not None and "media" not in plan.stale:
        is_due_again = bool(part_due_again(corpus, part, media).rows)
        retry = datetime.now(UTC).isoformat() if is_due_again else media.next_retry_at
    return PartStatus(part, part.stop - part.start, stages, "; ".join(notes) or plan.why, retry)


def slices_with_media(workspace: Workspace, status: Status) -> list[tuple[str, str]]:
    """Part and slice of all media that were fetched, from the part stamps."""
    stamps = {part.part.name: workspace.part_stamp(part.part.name, "media") for part in status.parts}
    return [(part, name) for part, stamp in stamps.items() if stamp is not None for name in stamp.slices]


def to_json(status: Status, hosts: FailingHosts | None, disk: Mapping[str, DiskUse] | None) -> str:
    """The status as a JSON object, for machines: counts, every part that is not ready, stages under way.

    Args:
        hosts, disk: None if they were not asked for.
    """
    values: dict[str, Any] = {
        "parts": len(status.parts),
        "rows": sum(part.rows for part in status.parts),
        "ready": sum(part.ready for part in status.parts),
        "states": {stage: dict(Counter(part.stages[stage] for part in status.parts)) for stage in PART_STAGES},
        "stuck": [asdict(stage) for stage in status.stuck],
        "underway": [asdict(stage) for stage in status.underway],
        "eta_s": status.eta_s,
        "eta_without": list(status.eta_without),
        "retries_due": status.retries_due,
        "next_retry_at": status.next_retry_at,
        "paused_hosts": [asdict(pause) for pause in status.paused_hosts],
        "reasons": status.reasons,
        "unreadable": status.unreadable,
        "idle_rules": list(status.idle_rules),
        "balance": list(status.balance),
        "release": status.release,
        "held": status.hold,
        "not_ready": [
            {"part": part.part.name, "source": part.part.source, "rows": part.rows, **part.stages, "why": part.why}
            for part in status.parts
            if not part.ready
        ],
    }
    if hosts is not None:
        values["hosts"] = asdict(hosts)
    if disk is not None:
        values["disk"] = {kind: asdict(use) for kind, use in disk.items()}
    return json.dumps(values, indent=1, ensure_ascii=False)


def latest_release(workspace: Workspace) -> dict[str, Any] | None:
    """The latest release's manifest, with the lengths of its long lists instead of the lists; None: no release yet.

    Its key `problem` says that the manifest is gone or damaged, and the remedy; else it is null.
    """
    release_id = workspace.latest()
    if release_id is None:
        return None
    release = {"release_id": release_id, "path": str(workspace.release_dir(release_id))}
    try:
        manifest = find_manifest(workspace, release_id)
        problem = None if manifest else f"its manifest.json is gone. {DAMAGED_REMEDY}"
    except DataError as error:
        manifest, problem = None, str(error)
    if manifest is None:
        return {**release, "problem": problem}
    return {
        **release,
        "created_at": manifest["created_at"],
        "counts": manifest["counts"],
        "reasons": dict(Counter(manifest["reasons"]).most_common()),
        "scorer": manifest["scorer"],
        "shards": len(manifest["shards"]),
        "problem": problem,
    }
