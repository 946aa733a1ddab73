"""Builds workspaces with given samples, as the stages before the selection would have left them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmdata.config import Corpus, Filter, Select
from mmdata.config.load import parse_corpus
from mmdata.engine.part_run import SliceResult, publish_slice, stamp_part
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import REQUIRED
from mmdata.samples import FEATURES, MEDIA, ROWS, sample_uid, table_of
from mmdata.select.candidates import compact, merge_candidates
from mmdata.select.decide import balance_and_repeat, drop_duplicates, judge
from mmdata.select.filters import filter_reason
from mmdata.select.rates import Rates
from mmdata.select.selection_table import hex_uids
from mmdata.workspace.layout import Catalog, Part, Workspace

MEASURES = (
    *("black_ratio", "frozen_ratio", "audio_rms_db", "silence_ratio", "speech_ratio", "speech_overlap"),
    "audio_score",
)
SCORER = {"name": "a test scorer", "fingerprint": "00c0ffee"}
EVERY_STEP = Select.model_validate(
    {
        "filter": {"top_fraction": 0.9, "max_aspect": 5},
        "dedup": {"phash_bits": 3},
        "balance": {"max_ratio": 1.5, "by": "tokens", "tail_share": 0},
        "oversample": {"threshold": 0.5, "max_repeats": 3},
    }
)


CANDIDATE_COLUMNS = {
    "uid": pl.String,
    "kind": pl.String,
    "url": pl.String,
    "caption": pl.String,
    "problem": pl.String,
    "copies": pl.Int32,
    "status": pl.String,
    "error": pl.String,
    "sha256": pl.String,
    "clip_score": pl.Float32,
    "phash": pl.UInt64,
    "aspect": pl.Float32,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "audio_s": pl.Float64,
    "transcript": pl.String,
    "features_problem": pl.String,
    "cluster": pl.Int32,
}


def corpus_for(root: Path, select: Mapping[str, Any] | None = None, **sections: Any) -> Corpus:
    """A corpus over one source, `web`."""
    source = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    chosen = {"dedup": {"phash_bits": None, "semantic_eps": None}, "balance": {"max_ratio": None}, **(select or {})}
    return parse_corpus({"workspace": str(root / "workspace"), "sources": [source], "select": chosen, **sections})


def sample(number: int, **given: Any) -> dict[str, Any]:
    """One sample, all columns of rows, media and features in one dict; every number differs in all that matters."""
    url, caption = given.get("url", f"http://host.test/{number}.jpg"), given.get("caption", f"a picture of {number}")
    draw = np.random.default_rng(number)
    own = {
        "uid": sample_uid(url, caption, given.get("start_s"), given.get("end_s")),
        "source": "web",
        "kind": "image",
        "url": url,
        "caption": caption,
        "copies": 1,
        "row": number,
        "status": "success",
        "attempts": 1,
        "sha256": sha256(url.encode()).hexdigest() if url else None,
        "original_width": 640,
        "original_height": 480,
        "clip_score": float(np.float32(draw.uniform(0.1, 0.4))),
        "phash": int.from_bytes(blake2b(url.encode(), digest_size=8).digest(), "big") if url else None,
        "lang": "en",
        "lang_prob": 0.99,
        "n_words": len((caption or "").split()),
        "n_chars": len(caption or ""),
        "aspect": 1.33,
        "sharpness": 100.0,
    }
    for name in ("embedding", "text_embedding"):
        if given.get(name) is not None:
            given = {**given, name: np.asarray(given[name], np.float16)}
    return own | given


def points(count: int, centres: int = 5, dim: int = 8, spread: float = 0.2, seed: int = 0) -> list[np.ndarray]:
    """Unit vectors around a few centres."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dim))
    found = middle[rng.integers(0, centres, count)] + rng.normal(scale=spread, size=(count, dim))
    return list((found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16))


def build(
    corpus: Corpus,
    parts: Mapping[str, Sequence[Sequence[dict[str, Any]]]],
    *,
    scorer: Mapping[str, str] | None = SCORER,
    rejected: Mapping[str, str] | None = None,
) -> Workspace:
    """Write the slices of parts, with all stamps, and the catalogue (parts already there are kept).

    Args:
        parts: part -> slices -> samples.
        rejected: part -> why its media were not accepted.
    """
    workspace = Workspace(corpus.workspace)
    known = dict(workspace.catalog().parts)
    for name, slices in parts.items():
        part = Part(name, "web", f"inbox/{name}.parquet", 0, sum(map(len, slices)), digest=fingerprint(name))
        known[name] = part
        _write_part(corpus, workspace, part, slices, scorer, (rejected or {}).get(name))
    workspace.write_catalog(Catalog(parts=known))
    return workspace


def _write_part(
    corpus: Corpus,
    workspace: Workspace,
    part: Part,
    slices: Sequence[Sequence[dict[str, Any]]],
    scorer: Mapping[str, str] | None,
    rejected: str | None,
) -> None:
    stamps: dict[str, dict[str, Any]] = {"rows": {}, "media": {}, "features": {}}
    for number, samples in enumerate(slices):
        name = f"{number:04d}"
        unique: dict[str, dict[str, Any]] = {}
        for one in samples:
            before = unique.get(one["uid"], {"copies": 0})
            unique[one["uid"]] = {"part": part.name, **one, "copies": one["copies"] + before["copies"]}
        features = [one | {"problem": one.get("features_problem")} for one in unique.values()]
        tables = {
            "rows": table_of(_only(unique.values(), ROWS), ROWS),
            "media": table_of(_only(unique.values(), MEDIA), MEDIA),
            "features": table_of(_only(features, FEATURES), FEATURES),
        }
        if scorer is not None:
            tables["features"] = tables["features"].replace_schema_metadata({"scorer": json.dumps(dict(scorer))})
        for stage, table in tables.items():
            stamps[stage][name] = publish_slice(workspace, part.name, stage, name, "any", SliceResult(table))
    upstream = rows_input(part)
    digests: dict[str, str] = {}
    for stage, found in stamps.items():
        settings = stage_settings(corpus, part, stage)
        reason = rejected if stage == "media" else None
        stamp = stamp_part(workspace, part.name, stage, fingerprint(settings, upstream), found, reason)
        digests[stage] = stamp.digest
        upstream = stamp.digest if stage == "rows" else features_input(digests["rows"], stamp.digest)


def _only(samples: Any, schema: pa.Schema) -> list[dict[str, Any]]:
    return [{name: one[name] for name in schema.names if name in one} for one in samples]


def publish(workspace: Workspace, release_id: str) -> None:
    """Make the draft a release, as far as the next selection can tell."""
    draft = read_draft(workspace)
    manifest = {**dict.fromkeys(REQUIRED), "inputs": draft.inputs, "parent": draft.parent, "release_id": release_id}
    (workspace.release_dir(release_id) / "manifest.json").write_text(json.dumps(manifest))
    workspace.set_latest(release_id)


def selection(workspace: Workspace) -> pl.DataFrame:
    """The draft's selection table."""
    return pl.read_parquet(str(workspace.release_dir(read_draft(workspace).release_id) / "selection.parquet"))


def filter_reasons(rules: Filter, *samples: dict[str, Any]) -> list[str | None]:
    """The filter's reason for each sample; None where it is kept."""
    schema = {
        "kind": pl.String,
        "clip_score": pl.Float32,
        "lang": pl.String,
        "lang_prob": pl.Float32,
        "n_words": pl.Int32,
        "n_chars": pl.Int32,
        "aspect": pl.Float32,
        "sharpness": pl.Float32,
        "original_width": pl.Int32,
        "original_height": pl.Int32,
        "extra": pl.String,
        "caption": pl.String,
        "duration_s": pl.Float64,
        "audio_s": pl.Float64,
        "faces": pl.Int32,
        **dict.fromkeys(MEASURES, pl.Float32),
    }
    frame = pl.DataFrame([{name: given.get(name) for name in schema} for given in samples], schema=schema)
    return frame.select(filter_reason(rules).alias("reason"))["reason"].to_list()


def compacted(*rows: dict[str, Any], select: Select = EVERY_STEP, **further: pl.DataType) -> pl.DataFrame:
    """The candidates of one slice."""
    schema = {**CANDIDATE_COLUMNS, **further}
    return compact(pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema), select)


def decide(frames: list[list[dict[str, Any]]], select: Select = EVERY_STEP) -> pl.DataFrame:
    """Merge and decide; one row a uid."""
    candidates = []
    for place, rows in enumerate(frames):
        clusters = pl.Series("cluster", [row.get("cluster", -1) for row in rows], dtype=pl.Int32)
        candidates.append(compacted(*rows, select=select).with_columns(clusters, place=pl.lit(place, pl.UInt32)))
    frame = merge_candidates(candidates)
    verdicts, _ = judge(frame, select)
    drop_duplicates(frame, verdicts, select.dedup)
    verdicts.settle()
    cluster = frame["cluster"].to_numpy()
    decision = balance_and_repeat(frame, verdicts, cluster, select, 0, 0.2, Rates("s"))
    return pl.DataFrame(
        {
            "uid": pl.Series(hex_uids(frame["uid_high"].to_numpy(), frame["uid_low"].to_numpy())),
            "reason": verdicts.reasons(),
            "leader": verdicts.leaders,
            "copies": frame["copies"],
            "rate": decision.rate,
            "repeats": decision.repeats,
            "validation": decision.validation,
            "concept": decision.concept,
        }
    )
