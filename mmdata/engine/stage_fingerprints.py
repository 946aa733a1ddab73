"""The settings and code versions that decide what the stages of a part write, and their fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdata.config import Corpus, Recaption, Score
from mmdata.config.scorers import resolved
from mmdata.config.setting_changes import flat
from mmdata.engine.deciding_settings import CLIP_KINDS
from mmdata.fingerprint import fingerprint
from mmdata.workspace.layout import Part, PartStage

CODE_VERSIONS: dict[str, int] = {"rows": 3, "media": 2, "features": 2, "selection": 3, "shards": 3, "instructions": 4}
"""Raise a number when a stage's code writes something else than before: all older results are then stale."""

TEXT_VERSION = 2
"""Raise it when texts are measured otherwise (language, words): these columns are refilled, and no media are read."""

CAPTION_VERSION = 1
"""Raise it when captions are made in another way from the same settings: all older ones are then made again."""

CAPTIONER_FILES = ("*.json", "*.jinja", "*.safetensors", "*.bin", "*.txt", "*.model")
"""The files of a local captioner that decide what it says: settings, chat template, weights, tokenizer."""


def stage_settings(corpus: Corpus, part: Part, stage: PartStage) -> str:
    """Fingerprint of the code version and of the settings that change what a stage writes for a part.

    Settings of speed (threads, batch size, device) and of patience (timeouts, retries) are left out on purpose.
    """
    if stage == "rows":
        source, clips = _row_settings(corpus, part)
        return fingerprint("rows", CODE_VERSIONS["rows"], *source.values(), clips)
    if stage == "media":
        return fingerprint("media", CODE_VERSIONS["media"], *media_settings(corpus, part).values())
    settings: list[Any] = [["text", TEXT_VERSION], *measure_settings(corpus), *caption_settings(corpus)]
    settings += further_score_settings(corpus.score)
    return fingerprint("features", CODE_VERSIONS["features"], scorer_settings(corpus.score), *settings)


def named_settings(corpus: Corpus, part: Part, stage: PartStage) -> dict[str, Any]:
    """The settings in `stage_settings`, by name, for the part stamp: `download.image_size` -> 256."""
    if stage == "rows":
        source, clips = _row_settings(corpus, part)
        settings: dict[str, Any] = {f"source {part.source}": source, "clips": clips or {}}
    elif stage == "media":
        settings = media_settings(corpus, part)
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


def media_settings(corpus: Corpus, part: Part) -> dict[str, Any]:
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


def rows_input(part: Part) -> str:
    """Digest of what the rows stage of a part reads."""
    return fingerprint(part.digest, part.start, part.stop)


def features_input(rows_digest: str, media_digest: str) -> str:
    """Digest of what the features stage reads, of a slice or of a part."""
    return fingerprint(rows_digest, media_digest)
