"""Which stages of a part are stale, and which parts may enter a release. Reads the stamps only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mmdata.config import Corpus
from mmdata.config.setting_changes import changed_settings
from mmdata.engine.deciding_settings import LIMITS, DueAgain, deciding_settings, due_again, only_widened, rules_changed
from mmdata.engine.stage_fingerprints import (
    CODE_VERSIONS,
    features_input,
    media_settings,
    named_settings,
    rows_input,
    stage_settings,
)
from mmdata.fingerprint import fingerprint
from mmdata.optout.state import opt_out_digest
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, PartStamp, SliceStamp, Workspace

FILTER_CHANGED = "the source's filter has changed"


@dataclass(frozen=True, slots=True)
class PartPlan:
    """The work that a part needs.

    Args:
        stale: the stages to run, in order; empty if the part is up to date.
        why: the reasons, in one line for people.
        fingerprint: the same work for the same reasons has the same fingerprint; a sensor uses it as run key.
    """

    part: Part
    stale: tuple[PartStage, ...]
    why: str
    fingerprint: str


def needs_text_vectors(corpus: Corpus) -> bool:
    """Whether the selection or the instructions that are asked for by name read the text embeddings of the features."""
    return corpus.select.needs_text_embeddings or "match" in corpus.instruct.tasks


def lacks_text_vectors(corpus: Corpus, stamp: PartStamp | SliceStamp) -> bool:
    """Whether the features of a part or a slice lack text embeddings that the selection or the instructions need.

    Tables of older versions have none, and they stay valid: only what needs the vectors has them filled in.
    """
    return needs_text_vectors(corpus) and _rows_without_text_vector(stamp) > 0


def lacking_vectors(stamp: PartStamp | SliceStamp) -> str:
    """What the features lack, in words."""
    rows = _rows_without_text_vector(stamp)
    return f"{rows:,} scored samples lack the text embedding that selection or instructions need"


def _rows_without_text_vector(stamp: PartStamp | SliceStamp) -> int:
    return stamp.counts.get("scored", 0) - stamp.counts.get("text_embedded", 0)


def plan_part(
    corpus: Corpus,
    workspace: Workspace,
    part: Part,
    now: datetime | None = None,
    opt_out: str | None = None,
    *,
    with_retries: bool = True,
) -> PartPlan:
    """Which stages of a part must run, and why.

    Args:
        with_retries: failed rows that are due make the media stale; False: only what is not valid is stale.
        opt_out: `opt_out_digest` of the workspace, if the caller has read it already.
    """
    opt_out = opt_out_digest(workspace) if opt_out is None else opt_out
    stale: list[PartStage] = []
    reasons: list[str] = []
    stamps: dict[str, PartStamp | None] = {stage: workspace.part_stamp(part.name, stage) for stage in PART_STAGES}
    due = ""
    for stage in PART_STAGES:
        stamp = stamps[stage]
        if stale:
            stale.append(stage)
        elif stamp is None:
            stale.append(stage)
            reasons.append(f"{stage}: not finished")
        elif stamp.fingerprint != fingerprint(stage_settings(corpus, part, stage), _input(part, stage, stamps)):
            stale.append(stage)
            reasons.append(f"{stage}: {what_changed(corpus, part, stage, stamp)}")
        elif stage == "rows" and stamp.opt_out != opt_out:
            stale.append(stage)
            reasons.append("rows: the opt-out has changed")
        elif stage == "features" and lacks_text_vectors(corpus, stamp):
            stale.append(stage)
            reasons.append(f"features: {lacking_vectors(stamp)}")
        elif stage == "media" and rules_changed(stamp.deciding, deciding_settings(corpus, part.source)):
            stale.append(stage)
            reasons.append(f"media: {FILTER_CHANGED}")
        elif stage == "media" and with_retries and (due := _retries(corpus, part, stamp, now)):
            stale.append(stage)
            reasons.append(f"media: {due}")
    settings = [stage_settings(corpus, part, stage) for stage in PART_STAGES]
    state = [rows_input(part), settings, stale, due, *([opt_out] if opt_out else [])]
    return PartPlan(part, tuple(stale), "; ".join(reasons), fingerprint(*state))


def _retries(corpus: Corpus, part: Part, stamp: PartStamp, now: datetime | None) -> str:
    """Which failed rows of a part are due, in words; empty if none is."""
    again = part_due_again(corpus, part, stamp)
    due = [f"retries due since {stamp.next_retry_at}"] if is_due(stamp.next_retry_at, now) else []
    return "; ".join(due + ([f"retries due: {again}"] if again.rows else []))


def part_due_again(corpus: Corpus, part: Part, stamp: PartStamp) -> DueAgain:
    """The failed rows of a part that are due again because a setting has changed."""
    return due_again({**_limits(stamp), **stamp.deciding}, deciding_settings(corpus, part.source), stamp.reasons)


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a fetch of a slice takes over from the run before.

    Args:
        settings: `stage_settings` that its table must have been made with, besides the present ones.
        again: the failed rows that are fetched again, because a setting has changed.
    """

    settings: str
    again: DueAgain


def media_reuse(corpus: Corpus, part: Part, part_stamp: PartStamp | None, stamp: SliceStamp) -> Reuse:
    """What the next fetch of a slice may take over. A limit that was only widened makes nothing stale that is stored.

    Args:
        part_stamp: tells the limits if the slice's stamp is of a version that did not keep them.
    """
    before = {**(_limits(part_stamp) if part_stamp is not None else {}), **stamp.deciding}
    now = deciding_settings(corpus, part.source)
    settings = media_settings(corpus, part)
    if only_widened(before, now):
        for name in LIMITS:
            section, _, key = name.partition(".")
            if name in before and section in settings:
                settings[section] = {**settings[section], key: before[name]}
    digest = fingerprint("media", CODE_VERSIONS["media"], *settings.values())
    return Reuse(digest, due_again(before, now, stamp.reasons))


def _limits(stamp: PartStamp) -> dict[str, Any]:
    return {name: stamp.settings[name] for name in LIMITS if name in stamp.settings}


def what_changed(corpus: Corpus, part: Part, stage: PartStage, stamp: PartStamp) -> str:
    """Why a stamp is stale: the settings that changed, by name; if none has changed, its input."""
    if not stamp.settings:  # written by a version that kept no settings in stamps
        return "its input or settings changed"
    changes = changed_settings(stamp.settings, named_settings(corpus, part, stage))
    return ", ".join(map(str, changes)) or "its input changed"


def is_due(next_retry_at: str | None, now: datetime | None = None) -> bool:
    """Whether a retry time has come."""
    return next_retry_at is not None and datetime.fromisoformat(next_retry_at) <= (now or datetime.now(UTC))


def plan_parts(corpus: Corpus, workspace: Workspace, now: datetime | None = None) -> Iterator[PartPlan]:
    """The plan of every live part, in catalogue order."""
    opt_out = opt_out_digest(workspace)
    for part in configured_parts(corpus, workspace):
        yield plan_part(corpus, workspace, part, now, opt_out)


def configured_parts(corpus: Corpus, workspace: Workspace) -> list[Part]:
    """The live parts of the sources in corpus.yaml; the parts of a source that was removed from it are left out."""
    names = {source.name for source in corpus.sources}
    return [part for part in workspace.catalog().live_parts() if part.source in names]


def releasable_parts(corpus: Corpus, workspace: Workspace) -> tuple[list[Part], dict[str, str]]:
    """The parts that may enter a release, and the reason for each part that may not.

    All stages of a part must be accepted and have the fingerprints that follow from the corpus. A due retry does not
    keep a part out: its tables are valid.
    """
    ready: list[Part] = []
    refused: dict[str, str] = {}
    opt_out = opt_out_digest(workspace)
    for part in configured_parts(corpus, workspace):
        plan = plan_part(corpus, workspace, part, opt_out=opt_out, with_retries=False)
        fresh = [stage for stage in PART_STAGES if stage not in plan.stale]
        stamps = {stage: workspace.part_stamp(part.name, stage) for stage in fresh}
        rejected = next(
            (why for stage, stamp in stamps.items() if stamp and (why := refusal(corpus, stage, stamp))), None
        )
        if rejected is not None or plan.stale:
            refused[part.name] = rejected or plan.why
        else:
            ready.append(part)
    return ready, refused


def refusal(corpus: Corpus, stage: PartStage, stamp: PartStamp) -> str | None:
    """Why a finished stage of a part may not enter a release; None if it may.

    Media are judged by the present download.min_success_share, so a changed share needs no new fetch.
    """
    if stage != "media" or "fetchable" not in stamp.counts:
        return stamp.reason if not stamp.accepted else None
    return media_refusal(stamp.counts, corpus.download.min_success_share)


def media_refusal(counts: Mapping[str, int], least: float) -> str | None:
    """Why too few of a part's files gave media; None if there are enough."""
    success, files = fetched_files(counts)
    if files == 0 or success >= least * files:
        return None
    return (
        f"media: success share {success / files:.3f} ({success} of {files}) is under download.min_success_share "
        f"({least:g})"
    )


def fetched_files(counts: Mapping[str, int]) -> tuple[int, int]:
    """How many files gave media, and how many files there are, by the counts of a media stamp.

    A file counts once, whatever the number of its clips or captions, so that thousands of impossible clips of one video
    do not hold a part back. Stamps of older versions count every row.
    """
    further_rows, further_success = counts.get("further_rows", 0), counts.get("further_success", 0)
    return counts.get("success", 0) - further_success, counts.get("fetchable", 0) - further_rows


def _input(part: Part, stage: PartStage, stamps: dict[str, PartStamp | None]) -> str:
    rows, media = stamps["rows"], stamps["media"]
    if stage == "rows":
        return rows_input(part)
    if stage == "media":
        return rows.digest if rows else ""
    return features_input(rows.digest if rows else "", media.digest if media else "")
