"""The instructions stage: writes JSONL files into a release, one for each form and split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.engine.stage_fingerprints import CODE_VERSIONS
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.instruct.forms import FORMS, Record, line
from mmdata.instruct.kept import Kept, read_kept
from mmdata.instruct.media_paths import data_uri, read_member
from mmdata.instruct.split_neighbours import neighbours_of
from mmdata.instruct.tasks import RULES, RecordCounts, default_tasks, make_records
from mmdata.observe import logs
from mmdata.releases.draft import check_draft
from mmdata.releases.manifest import DAMAGED_REMEDY
from mmdata.stage import Progress, StageReport, silent
from mmdata.storage.atomic import atomic_path, publish_json
from mmdata.storage.tables import read_table, scan_tables
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

_log = logs.logger(__name__)

PROGRESS_EVERY = 256
SKIPS_NAMED = 4  # in the warning about empty files


def write_instructions(corpus: Corpus, workspace: Workspace, progress: Progress = silent) -> StageReport:
    """Write the instruction records of the draft release, unless they exist already.

    Writes releases/<id>/instruct-<format>-<split>.jsonl, then instructions.json. The same release and settings give the
    same bytes. Only first copies give records. All media of a record are of the same split.

    Raises:
        DataError: nothing is selected, the shards are not written, or a table or shard is damaged.
    """
    release_id = check_draft(corpus, workspace).release_id
    folder = workspace.release_dir(release_id)
    if not (folder / "index.parquet").exists():
        raise DataError(f"{folder / 'index.parquet'}: not written yet. Remedy: `mmdata build` (`shards`).")
    shards = [shard["sha256"] for shard in (read_json(folder / "shards.json") or {"shards": []})["shards"]]
    inputs = fingerprint(release_id, CODE_VERSIONS["instructions"], corpus.instruct, corpus.seed, shards)
    facts = read_json(folder / "instructions.json")
    if facts is not None and facts["inputs"] == inputs and all((folder / name).exists() for name in facts["files"]):
        return _report(facts, folder, reused=True)
    if (folder / "manifest.json").exists():
        raise DataError(
            f"release {release_id} is published and its instructions are not those that corpus.yaml asks for. "
            f"{DAMAGED_REMEDY}"
        )
    tasks = _tasks(corpus, folder)
    kept = _gather(corpus, workspace, release_id, "text_qa" in tasks, progress)
    summary = _write(corpus, workspace, folder, kept, tasks, progress)
    facts = {"format": 1, "release_id": release_id, "inputs": inputs, "images": corpus.instruct.images, **summary}
    publish_json(folder / "instructions.json", facts)
    if empty := _empty_files(facts):
        _log.warning("instruction files are empty", release=release_id, why=empty)
    return _report(facts, folder, reused=False)


def _tasks(corpus: Corpus, folder: UPath) -> Sequence[str]:
    if corpus.instruct.tasks:
        return corpus.instruct.tasks
    return default_tasks(scan_tables([folder / "index.parquet"], ["signature"]).unique().collect()["signature"])


def _gather(corpus: Corpus, workspace: Workspace, release_id: str, with_qa: bool, progress: Progress) -> Kept:
    path = workspace.release_dir(release_id) / "index.parquet"
    total = int(np.count_nonzero(read_table(path, ["copy"])["copy"].to_numpy() == 0))
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        progress("instructions: reading", done, total)

    return read_kept(workspace, release_id, with_qa, advance, corpus.recaption)


def _write(
    corpus: Corpus, workspace: Workspace, folder: UPath, kept: Kept, tasks: Sequence[str], progress: Progress
) -> dict[str, Any]:
    settings = corpus.instruct
    files: dict[str, dict[str, Any]] = {}
    table: list[dict[str, Any]] = []
    examples: dict[str, dict[str, dict[str, Any]]] = {}
    skipped: Counter[str] = Counter()
    done, total = 0, len(kept.frame)
    for split in sorted(set(kept.frame["split"]) | {"train"}):
        frame = kept.frame.filter(pl.col("split") == split)
        counts = RecordCounts(Counter(), Counter())
        records = make_records(
            frame,
            neighbours_of(corpus, frame, kept, tasks),
            tasks,
            settings.languages,
            corpus.seed,
            counts,
        )
        with _JsonlFiles(folder, split, settings.formats) as out:
            last = ""
            for record in records:
                shown = examples.setdefault(record.task, {})
                if record.lang not in shown:
                    shown[record.lang] = FORMS["record"](record)
                out.write(_embedded(record, workspace.root) if settings.images == "base64" else record)
                uid = record.id[:32]
                if uid != last:
                    last, done = uid, done + 1
                    if done % PROGRESS_EVERY == 0:
                        progress("instructions", done, total)
        files |= out.facts()
        skipped += counts.skipped
        table += [
            {"task": task, "language": lang, "split": split, "records": count}
            for (task, lang), count in sorted(counts.records.items())
        ]
    progress("instructions", total, total)
    return {
        "counts": _counts(table, total, files),
        "skipped": dict(sorted(skipped.items())),
        "rules": {task: RULES[task] for task in tasks},
        "table": table,
        "examples": [examples[task][lang] for task in tasks for lang in sorted(examples.get(task, {}))],
        "files": files,
    }


@dataclass(slots=True)
class _OneFile:
    name: str
    form: str
    split: str
    file: BinaryIO
    sha256: Any
    bytes: int = 0
    records: int = 0


class _JsonlFiles:
    """The JSONL files of one split, one for each form. They get their names together, when all are complete."""

    def __init__(self, folder: UPath, split: str, forms: list[Any]) -> None:
        self._folder, self._split, self._forms = folder, split, forms
        self._stack = ExitStack()
        self._files: list[_OneFile] = []

    def __enter__(self) -> _JsonlFiles:
        for form in dict.fromkeys(self._forms):
            name = f"instruct-{form}-{self._split}.jsonl"
            draft = self._stack.enter_context(atomic_path(self._folder / name))
            file = self._stack.enter_context(draft.open("wb"))
            self._files.append(_OneFile(name, form, self._split, file, hashlib.sha256()))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, record: Record) -> None:
        for output in self._files:
            data = line(FORMS[output.form](record))
            output.file.write(data)
            output.sha256.update(data)
            output.bytes += len(data)
            output.records += 1

    def facts(self) -> dict[str, dict[str, Any]]:
        return {
            output.name: {
                "sha256": output.sha256.hexdigest(),
                "bytes": output.bytes,
                "records": output.records,
                "format": output.form,
                "split": output.split,
            }
            for output in self._files
        }


def _embedded(record: Record, root: UPath) -> Record:
    """The record with its pictures and sound as data URIs."""
    names = ("input_image", "reference_image", "output_image", "input_audio")
    embedded: dict[str, Any] = {n: _uri(path, root) for n in names if (path := getattr(record, n)) is not None}
    return replace(record, input_video=tuple(_uri(path, root) for path in record.input_video), **embedded)


@lru_cache(maxsize=256)
def _uri(path: str, root: UPath) -> str:
    return data_uri(path, read_member(path, root))


def _counts(table: list[dict[str, Any]], samples: int, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    def by(key: Callable[[dict[str, Any]], str]) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for entry in table:
            counts[key(entry)] += entry["records"]
        return dict(sorted(counts.items()))

    return {
        "samples": samples,
        "records": sum(entry["records"] for entry in table),
        "by_task": by(lambda entry: entry["task"]),
        "by_language": by(lambda entry: entry["language"]),
        "by_split": by(lambda entry: entry["split"]),
        "by_format": {
            form: sum(facts["records"] for facts in files.values() if facts["format"] == form)
            for form in sorted({facts["format"] for facts in files.values()})
        },
    }


def _empty_files(facts: dict[str, Any]) -> str:
    """Which files have no record, why, and what to do; empty if each has one, or if there is no sample."""
    names = [name for name, one in facts["files"].items() if one["records"] == 0]
    if not names or not facts["counts"]["samples"]:
        return ""
    reasons = sorted(facts["skipped"].items(), key=lambda item: (-item[1], item[0]))[:SKIPS_NAMED]
    skipped = f" Skipped most: {', '.join(f'{reason} ({count:,})' for reason, count in reasons)}." if reasons else ""
    return (
        f"{', '.join(names)}: no record of {', '.join(facts['rules']) or 'any task'}.{skipped} "
        "Remedy: name tasks under instruct.tasks that the samples can give; docs/formats.md says what each needs."
    )


def _report(facts: dict[str, Any], folder: UPath, reused: bool) -> StageReport:
    counts = facts["counts"]
    return StageReport(
        stage="instructions",
        counts={"rows": counts["records"], "samples": counts["samples"], **counts["by_task"]},
        reasons=facts["skipped"],
        version=fingerprint({name: file["sha256"] for name, file in facts["files"].items()}),
        numbers={"records_per_sample": counts["records"] / max(1, counts["samples"])},
        tables={
            "records by task": facts["table"],
            "examples": [
                {key: example[key] for key in ("task", "lang", "instruction", "output")}
                for example in facts["examples"]
            ],
            "files": [
                {"file": name, "records": one["records"], "MB": round(one["bytes"] / 1e6, 3), "sha256": one["sha256"]}
                for name, one in facts["files"].items()
            ],
        },
        text={"empty files": empty} if (empty := _empty_files(facts)) else {},
        paths={name: str(folder / name) for name in [*facts["files"], "instructions.json"]},
        slices_done=0 if reused else 1,
        slices_reused=1 if reused else 0,
    )
