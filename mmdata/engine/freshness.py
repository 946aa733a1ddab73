"""Which stages of a part are stale, and which parts may enter a release. Reads the stamps only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmdata.config import Corpus, Recaption, Score
from mmdata.config.scorers import resolved
from mmdata.config.setting_changes import changed_settings, flat
from mmdata.engine.deciding_settings import (
    CLIP_KINDS,
    LIMITS,
    DueAgain,
    deciding_settings,
    due_again,
    only_widened,
    rules_changed,
)
from mmdata.fingerprint import fingerprint
from mmdata.optout.state import opt_out_digest
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, PartStamp, SliceStamp, Workspace

CODE_VERSIONS: dict[str, int] = {"rows": 3, "media": 2, "features": 2, "selection": 3, "shards": 3, "instructions": 4}
"""Raise a number when a stage's code writes something else than before: all older results are then stale."""

TEXT_VERSION = 2
"""Raise it when texts are measured otherwise (language, words): these columns are refilled, and no media are read."""

CAPTION_VERSION = 1
"""Raise it when captions are made in another way from the same settings: all older ones are then made again."""

CAPTIONER_FILES = ("*.json", "*.jinja", "*.safetensors", "*.bin", "*.txt", "*.model")
"""The files of a local captioner that decide what it says: settings, chat template, weights, tokenizer."""


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


def stage_settings(corpus: Corpus, part: Part, stage: PartStage) -> str:
    """Fingerprint of the code version and of the settings that change what a stage writes for a part.

    Settings of speed (threads, batch size, device) and of patience (timeouts, retries) are left out on purpose.
    """
    if stage == "rows":
        source, clips = _row_settings(corpus, part)
        return fingerprint("rows", CODE_VERSIONS["rows"], *source.values(), clips)
    if stage == "media":
        return fingerprint("media", CODE_VERSIONS["media"], *_media_settings(corpus, part).values())
    settings: list[Any] = [["text", TEXT_VERSION], *measure_settings(corpus), *caption_settings(corpus)]
    settings += further_score_settings(corpus.score)
    return fingerprint("features", CODE_VERSIONS["features"], scorer_settings(corpus.score), *settings)


def named_settings(corpus: Corpus, part: Part, stage: PartStage) -> dict[str, Any]:
    """The settings in `stage_settings`, by name, for the part stamp: `download.image_size` -> 256."""
    if stage == "rows":
        source, clips = _row_settings(corpus, part)
        settings: dict[str, Any] = {f"source {part.source}": source, "clips": clips or {}}
    elif stage == "media":
        settings = _media_settings(corpus, part)
    else:
        model, *weights, precision = scorer_settings(corpus.score)
        checkpoint = dict(zip(("pretrained", "bytes of the checkpoint", "its time of change"), weights, strict=False))
        settings = {"score": {"model": model, **checkpoint, "precision": precision}}
        settings["code version of texts"] = TEXT_VERSION
        for name, value in measure_settings(corpus):
            settings["privacy.count_faces, from a score of" if name == "faces" else f"score.{name}"] = value
        settings |= dict(caption_settings(corpus))
        settings |= {f"score.{name}": value for name, value in further_score_settings(corpus.score)}
    return {"code version": CODE_VERSIONS[stage], **flat(settings)}


def _row_settings(corpus: Corpus, part: Part) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The settings that decide the rows of a part: those of its source, and of HowTo100M those of the clips."""
    source = next(source for source in corpus.sources if source.name == part.source)
    shape = corpus.clips.model_dump(include={"min_clip_s", "max_clip_s", "max_gap_s"})
    source_settings: dict[str, Any] = {"kind": source.kind, "columns": source.columns, "slice_rows": source.slice_rows}
    if source.captions_encoding:  # left out at its default, so that older stamps stay valid
        source_settings["captions_encoding"] = source.captions_encoding
    reading = {"header", "keep_columns", "url_template", "clip_s", "percent_encoded_captions", "max_pictures"}
    further = source.model_dump(include=reading, exclude_defaults=True)
    if source.keep_columns is not None and source.filter is not None:
        further["keep_columns"] = [*source.keep_columns, *source.filter.columns]  # what a rule reads is kept, too
    source_settings |= {name: {name: value} for name, value in further.items()}
    return source_settings, shape if source.kind == "howto100m" else None


def _media_settings(corpus: Corpus, part: Part) -> dict[str, Any]:
    """The settings that decide the stored bytes of a part, without those that do not apply to its kind."""
    kind = next((source.kind for source in corpus.sources if source.name == part.source), None)
    deciding = {"image_size", "encode_quality", "max_bytes", "max_pixels", "respect_robots"}
    settings: dict[str, Any] = {"download": corpus.download.model_dump(include=deciding)}
    if kind in CLIP_KINDS:
        cut = {"frames", "choose", "sound", "keep_video", "max_duration_s", "max_bytes"}
        settings["clips"] = corpus.clips.model_dump(include=cut)
    if (corpus.privacy.blur_faces or corpus.privacy.drop_voices) and kind != "text":
        settings["privacy"] = corpus.privacy.model_dump(exclude={"count_faces"})
    if corpus.synthesis.speech > 0:
        settings |= {"synthesis": corpus.synthesis.model_dump(), "seed": corpus.seed}
    return settings


def scorer_settings(score: Score) -> list[str | int | None]:
    """The settings that decide the scores. A local checkpoint counts by name, size and time, not by its folder."""
    schema, _, folder = resolved(score).model.partition(":")
    if schema == "local-dir":
        names = ("open_clip_model.safetensors", "model.safetensors")  # of open_clip, and of transformers
        files = [Path(folder) / name for name in names]
        place, model = next((file for file in files if file.is_file()), files[0]), "local-dir"
    else:
        place, model = Path(score.pretrained or ""), score.model
    if place.is_file():
        facts = place.stat()
        return [model, place.name, facts.st_size, int(facts.st_mtime), score.precision]
    return [score.model, score.pretrained, score.precision]


def measure_settings(corpus: Corpus) -> list[Any]:
    """The settings beside the scorer that decide what is measured; empty for the defaults."""
    settings: list[Any] = []
    if corpus.privacy.count_faces and not corpus.privacy.blur_faces:  # blurring counts faces itself, before it blurs
        settings.append(["faces", corpus.privacy.min_face_score])
    models = ("audio_model", "transcriber")
    return settings + [[name, model] for name in models if (model := getattr(corpus.score, name))]


def further_score_settings(score: Score) -> list[tuple[str, Any]]:
    """The settings that decide the further scores of pictures and pairs; empty where there are none."""
    settings: list[tuple[str, Any]] = [(name, True) for name in score.further_scores if name not in score.networks]
    for name, network in sorted(score.networks.items()):
        loaded = score.model_copy(update={"model": network.model, "pretrained": network.pretrained})
        settings.append((f"networks.{name}", scorer_settings(loaded)))
    return settings


def caption_settings(corpus: Corpus) -> list[tuple[str, dict[str, Any]]]:
    """The settings that decide which captions are made, and how; empty where none are."""
    recaption = corpus.recaption
    if not recaption.is_on:
        return []
    speed_and_use = {"device", "batch_size", "use", "margin"}
    settings = recaption.model_dump(mode="json", exclude=speed_and_use)
    files = captioner_files(recaption)
    if files:  # a local model counts by its files, not by its folder
        settings |= {"model": Path(recaption.model or "").name, "files": files}
    settings["code version"] = CAPTION_VERSION
    return [("recaption", settings | ({"seed": corpus.seed} if recaption.share < 1 else {}))]


def captioner_files(recaption: Recaption) -> list[list[str | int]]:
    """Names, sizes and times of change of a local captioner's files; empty for one of the hub."""
    folder = Path(recaption.model or "")
    if recaption.model is None or not folder.is_dir():
        return []
    files = sorted(path for pattern in CAPTIONER_FILES for path in folder.rglob(pattern) if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, int(path.stat().st_mtime)] for path in files]


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


def rows_input(part: Part) -> str:
    """Digest of what the rows stage of a part reads."""
    return fingerprint(part.digest, part.start, part.stop)


def features_input(rows_digest: str, media_digest: str) -> str:
    """Digest of what the features stage reads, of a slice or of a part."""
    return fingerprint(rows_digest, media_digest)


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
    settings = _media_settings(corpus, part)
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
