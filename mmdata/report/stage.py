"""The report stage: one self-contained HTML page about a release, what it contains, and what was dropped and why."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from upath import UPath

from mmdata.config import Filter
from mmdata.display import shown
from mmdata.errors import DataError, UserError
from mmdata.figures import charts
from mmdata.figures.sheet import sample_grid
from mmdata.instruct.forms import FORMS, record_of
from mmdata.instruct.media_paths import read_member
from mmdata.report.funnel import Step, funnel
from mmdata.report.gallery import Gallery, choose, fill
from mmdata.report.model_captions import CaptionedPicture, ModelCaptions, read_captions
from mmdata.report.page import environment
from mmdata.report.stored import FRAME_PX, small_picture, sound_uri
from mmdata.select.score_summary import histograms
from mmdata.select.selection_summary import Summary, summarise
from mmdata.stage import StageReport
from mmdata.storage.atomic import publish_bytes
from mmdata.storage.tables import scan_tables
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

MAX_SHARDS = 40
MAX_CONCEPTS = 12
DEMO_NOTE = (
    "This is mmdata's small offline scorer, not CLIP: it orders pairs usefully, but less well, and its cosines do not "
    "compare with published CLIP thresholds."
)


def report_release(folder: UPath | str, models: Sequence[Path] = ()) -> StageReport:
    """Write report.html into the folder of a release, `<workspace>/releases/<id>`.

    The same release and the same evaluations give the same page.

    Args:
        models: folders of trained models. The page shows the captions of those that were evaluated on this release.

    Raises:
        UserError: the folder contains no release.
        DataError: the tables of the release are damaged.
    """
    folder = UPath(folder)
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        raise UserError(f"{folder}: no release there (no manifest.json). Remedy: `mmdata build`.")
    workspace = Workspace(folder.parent.parent)
    table = scan_tables([folder / "selection.parquet"])
    summary = summarise(folder, Filter.model_validate(manifest["config"]["select"]["filter"]))
    instructions = read_json(folder / "instructions.json") or {}
    captions = read_captions(models, manifest["release_id"])
    chosen = replace(choose(table, list(summary.concepts)), captioned=[uid for model in captions for uid in model.uids])
    gallery = fill(chosen, table, workspace)
    steps = funnel(summary.counts["rows"], summary.counts["uids"], summary.counts["repeats"], summary.reasons)
    headline = _headline(manifest, summary, steps, instructions)
    scorer = manifest.get("scorer") or {}
    scorer_name = str(scorer.get("name"))
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            scorer_name=scorer_name,
            scorer_fingerprint=scorer.get("fingerprint"),
            scorer_note=DEMO_NOTE if "demo" in scorer_name else None,
            headline=headline,
            steps=steps,
            widest=max((step.left for step in steps), default=1) or 1,
            summary=summary,
            histogram=charts.score_histogram(summary.scores, summary.threshold, "Scores of all samples").inline(),
            named_histograms=[chart.inline() for chart in histograms(summary.named).values()],
            tail=summary.long_tail().inline(),
            signatures=_bars(summary.signatures),
            concepts=_bars(_ends(summary.concepts)),
            gallery=gallery,
            cards=gallery.cards,
            instructions=instructions,
            instruction_tasks=_by_task(instructions),
            examples=_examples(instructions, workspace),
            trained=_trained(captions, gallery, folder),
            shards=manifest["shards"][:MAX_SHARDS],
            shards_left=len(manifest["shards"]) - MAX_SHARDS,
            config_yaml=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
            root=shown(str(workspace.root)),
            verify_command=shlex.join(["mmdata", "verify", shown(str(folder))]),
        )
    )
    content = page.encode("utf-8", "xmlcharrefreplace")
    publish_bytes(folder / "report.html", content)
    return StageReport(
        stage="report",
        counts={**headline, "report_bytes": len(page)},
        reasons=summary.reasons,
        numbers=summary.numbers(),
        images=summary.images(scorer_name) | _grids(gallery),
        paths={"report": str(folder / "report.html")},
        version=hashlib.sha256(content).hexdigest(),
    )


def _headline(
    manifest: Mapping[str, Any], summary: Summary, steps: Sequence[Step], instructions: Mapping[str, Any]
) -> dict[str, int]:
    shards = manifest["shards"]
    return {
        "rows": summary.counts["rows"],
        "fetched": next(step.left for step in steps if step.name == "fetched"),
        "kept": summary.counts["kept"],
        "released": summary.counts["repeats"],
        "validation": summary.counts["validation"],
        "shards": len(shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "instructions": int(instructions.get("counts", {}).get("records", 0)),
    }


def _ends(concepts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The most common concepts and the rarest ones."""
    names = list(concepts)
    half = MAX_CONCEPTS // 2
    chosen = names if len(names) <= MAX_CONCEPTS else names[:half] + names[-half:]
    return {name: concepts[name] for name in chosen}


def _bars(pairs: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    widest = max((max(pair) for pair in pairs.values()), default=1) or 1
    return [
        {"name": name, "before": b, "after": a, "before_share": b / widest, "after_share": a / widest}
        for name, (b, a) in pairs.items()
    ]


def _by_task(instructions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each task, with its number of records in all, by language and by split."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in instructions.get("table", []):
        row = rows.setdefault(entry["task"], {"task": entry["task"], "records": 0, "rule": ""})
        row["records"] += entry["records"]
        row[entry["language"]] = row.get(entry["language"], 0) + entry["records"]
        row[entry["split"]] = row.get(entry["split"], 0) + entry["records"]
        row["rule"] = instructions.get("rules", {}).get(entry["task"], "")
    return list(rows.values())


def _examples(instructions: Mapping[str, Any], workspace: Workspace) -> list[dict[str, Any]]:
    """Examples of instruction records, with their media and their three forms as text."""
    examples = []
    for example in instructions.get("examples", []):
        record = record_of(example)
        images = {
            name: small_picture(_bytes_or_none(path, workspace))
            for name in ("input_image", "reference_image", "output_image")
            if (path := getattr(record, name)) is not None
        }
        frames = [small_picture(_bytes_or_none(path, workspace), FRAME_PX) for path in record.input_video]
        flac = _bytes_or_none(record.input_audio, workspace) if record.input_audio is not None else None
        sound = sound_uri(flac) if flac is not None else None
        forms = {name: json.dumps(form(record), ensure_ascii=False, indent=1) for name, form in FORMS.items()}
        examples.append({"record": record, "images": images, "frames": frames, "sound": sound, "forms": forms})
    return examples


def _trained(
    captions: Sequence[ModelCaptions], gallery: Gallery, folder: UPath
) -> list[tuple[ModelCaptions, list[CaptionedPicture], str | None]]:
    """The models that have captions to show, with these and with the link to the page of the model."""
    images = {uid: card.stored.image for uid, card in gallery.cards.items()}
    shown = [(model, model.pictures(images), model.link(folder)) for model in captions]
    return [entry for entry in shown if entry[1]]


def _bytes_or_none(path: str, workspace: Workspace) -> bytes | None:
    try:
        return read_member(path, workspace.root)
    except DataError:
        return None  # the page shows a note instead; `mmdata verify` reports the damage


def _grids(gallery: Gallery) -> dict[str, bytes]:
    """Contact sheets of the samples drawn at random and of those with the best scores."""
    grids = {}
    for name, uids in (("kept, drawn by chance", gallery.drawn), ("best scores", gallery.best)):
        cards = [gallery.cards[uid] for uid in uids if uid in gallery.cards and gallery.cards[uid].stored.image]
        if cards:
            pictures = [base64.b64decode((card.stored.image or "").partition(",")[2]) for card in cards]
            grids[name] = sample_grid(pictures, [c.stored.caption for c in cards], [c.score for c in cards])
    return grids
