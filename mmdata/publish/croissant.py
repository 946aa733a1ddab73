"""Croissant 1.0 metadata of a release: its files and the records in them, as JSON-LD.

Follows http://mlcommons.org/croissant/1.0. Paths are relative to the folder of the release. mmdata cannot know the
licence, the creators and the home page of a corpus; its publisher adds them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from mmdata.documents import DOCUMENT
from mmdata.releases.manifest import has_captions
from mmdata.samples import COLUMNS, GENERATED_TOKENS, INDEX

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

_CROISSANT_TERMS = (
    "citeAs", "column", "dataBiases", "dataCollection", "excludes", "extract", "field", "fileProperty", "fileObject",
    "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
    "personalSensitiveInformation", "recordSet", "references", "regex", "repeated", "replace", "separator", "source",
    "subField", "transform",
)  # fmt: skip

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "wd": "https://www.wikidata.org/wiki/",
}

SPLIT_TYPE = "wd:Q3985153"  # Croissant's type of a field that names the split
SPLITS = {"train": "training_split", "validation": "validation_split"}

_RECORD_FIELDS = (
    ("instruction", "What is asked."),
    ("input_image", "Picture the instruction is about: a path into a shard, or a data URI; null where none."),
    ("reference_image", "Second picture, to compare with; null where none."),
    ("input_audio", "Sound the instruction is about, likewise; null where none."),
    ("output", "The answer; null where the answer is a picture."),
    ("output_image", "The picture to be made; null where the answer is text."),
)


def croissant(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a release in Croissant 1.0 JSON-LD.

    Args:
        manifest: as in manifest.json; `files` may lack files that are written later.

    Returns:
        A JSON object to be stored as croissant.json in the release's folder.
    """
    release_id = manifest["release_id"]
    shards, files = manifest.get("shards", []), manifest.get("files", {})
    dataset: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"mmdata-{release_id}",
        "description": _description(manifest),
        "identifier": release_id,
        "isLiveDataset": False,
        "keywords": ["multimodal", "webdataset", *sorted(manifest.get("signatures", {}))],
        "distribution": [_shard_object(shard) for shard in shards] + _file_objects(files),
        "recordSet": [_split_values()],
    }
    if created_at := manifest.get("created_at"):
        dataset["datePublished"] = created_at
    if shards:
        kinds = {kind for signature in manifest.get("signatures") or {} for kind in signature.split("+")}
        dataset["distribution"] += _file_sets(shards, kinds)
        dataset["recordSet"] += [
            _member_records(
                "images", "image", "sc:ImageObject", "The picture.", {"key": r"([^/]+)\.(?:jpg|png|webp)$"}
            ),
            _member_records("captions", "text", "sc:Text", "The caption.", {"key": r"([^/]+)\.txt$"}),
        ]
        if {"video", DOCUMENT} & kinds:
            in_name = {"key": r"([^/.]+)\.\d{3}\.(?:jpg|png|webp)$", "number": r"\.(\d{3})\.(?:jpg|png|webp)$"}
            about = "The frame of a clip, or a picture of a document."
            frames = _member_records("frames", "frame", "sc:ImageObject", about, in_name)
            dataset["recordSet"].append(frames)
        if "audio" in kinds:
            sounds = _member_records("sounds", "sound", "sc:AudioObject", "The sound.", {"key": r"([^/.]+)\.flac$"})
            dataset["recordSet"].append(sounds)
    if "index.parquet" in files:
        dataset["recordSet"].append(_index_records(with_captions=has_captions(manifest)))
    for name in sorted(files):
        if name.startswith("instruct-record-") and name.endswith(".jsonl"):
            dataset["recordSet"].append(_instruction_records(name))
    return dataset


def json_ld(value: Mapping[str, Any]) -> bytes:
    """JSON-LD that can be put into a `<script>` of a page: no text in it can end the script."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return (text + "\n").encode()


def _description(manifest: Mapping[str, Any]) -> str:
    shards = manifest.get("shards", [])
    samples, size = sum(s["samples"] for s in shards), sum(s["bytes"] for s in shards)
    scorer = manifest.get("scorer")
    scored = f" Image-text scores are by {scorer['name']}." if scorer else ""
    parent = f" It follows release {manifest['parent']}." if manifest.get("parent") else ""
    return (
        f"Release {manifest['release_id']} of a multimodal corpus: {samples:,} samples in {len(shards):,} WebDataset "
        f"shards ({size / 1e6:,.1f} MB).{scored}{parent} Pictures and captions come from the web and keep the "
        "rights of their owners; each sample's .json member names its source URL."
    )


def _shard_object(shard: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{shard['name'].removesuffix('.tar')}.tar"
    return _file_object(f"shards/{name}", f"../../shards/{name}", "application/x-tar", shard["sha256"], shard["bytes"])


def _file_objects(files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    types = {"parquet": "application/x-parquet", "jsonl": "application/jsonlines", "json": "application/json"}
    media_types = {name: types.get(name.rpartition(".")[2], "application/octet-stream") for name in sorted(files)}
    return [
        _file_object(name, name, media_type, files[name]["sha256"], files[name]["bytes"])
        for name, media_type in media_types.items()
        if name != "croissant.json"
    ]


def _file_object(identity: str, url: str, kind: str, sha256: str, size: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": identity,
        "name": identity,
        "contentUrl": url,
        "contentSize": f"{size} B",
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _file_sets(shards: list[Mapping[str, Any]], kinds: Collection[str]) -> list[dict[str, Any]]:
    holders = [{"@id": f"shards/{shard['name'].removesuffix('.tar')}.tar"} for shard in shards]
    members: list[tuple[str, str, str | list[str], str | list[str]]] = [
        ("images", "Pictures.", ["image/jpeg", "image/png", "image/webp"], ["*.jpg", "*.png", "*.webp"]),
        ("captions", "Captions, UTF-8.", "text/plain", "*.txt"),
        ("metadata", "What is known of each sample.", "application/json", "*.json"),
    ]
    if "audio" in kinds:
        members.append(("sounds", "Sound, 16 kHz mono FLAC.", "audio/flac", "*.flac"))
    sets = [_file_set(name, f"{text} One a sample, found by its key.", holders, *both) for name, text, *both in members]
    if not {"video", DOCUMENT}.isdisjoint(kinds):
        frames = [f"*.[0-9][0-9][0-9].{ext}" for ext in ("jpg", "png", "webp")]
        sets[0]["excludes"] = frames
        text = "Frames of clips, and pictures of documents. Several a sample, found by its key and their number."
        sets.append(_file_set("frames", text, holders, sets[0]["encodingFormat"], frames))
    return sets


def _file_set(name: str, text: str, holders: list[dict[str, Any]], kind: Any, pattern: Any) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-in-shards",
        "name": f"{name}-in-shards",
        "description": text,
        "containedIn": holders,
        "encodingFormat": kind,
        "includes": pattern,
    }


def _split_values() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The splits and what they are for.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": ["sc:URL", SPLIT_TYPE]},
        ],
        "data": [
            {"splits/name": name, "splits/url": f"https://mlcommons.org/definitions/{meaning}"}
            for name, meaning in SPLITS.items()
        ],
    }


def _member_records(name: str, field: str, kind: str, text: str, in_name: Mapping[str, str]) -> dict[str, Any]:
    """A record set that is read from the shards: a field with the content of each member, and parts of its name.

    Args:
        in_name: `key` and `number` -> the regular expression that finds it in a member's name.
    """
    members = {"fileSet": {"@id": f"{name}-in-shards"}}
    texts = {"key": "Key of the sample, the same in each record set.", "number": "Number of the frame, from 000."}
    fields = []
    for part, pattern in in_name.items():
        source = {**members, "extract": {"fileProperty": "filename"}, "transform": {"regex": pattern}}
        fields.append(_field(name, part, "sc:Text", texts[part], source))
    fields.append(_field(name, field, kind, text, {**members, "extract": {"fileProperty": "content"}}))
    return _record_set(name, f"{text} Read from the shards.", fields, key=None if "number" in in_name else "key")


def _index_records(with_captions: bool) -> dict[str, Any]:
    columns = [*COLUMNS["shards"], *([GENERATED_TOKENS] if with_captions else [])]
    fields = [
        _field(
            "samples", column.name, _data_type(column.type), column.description, _column("index.parquet", column.name)
        )
        for column in columns
    ]
    split = fields[INDEX.names.index("split")]
    split |= {"dataType": ["sc:Text", SPLIT_TYPE], "references": {"field": {"@id": "splits/name"}}}
    return _record_set("samples", "One record a sample and copy: its position and its contents.", fields)


def _data_type(column_type: pa.DataType) -> str:
    if pa.types.is_string(column_type):
        return "sc:Text"
    return "sc:Float" if pa.types.is_floating(column_type) else "sc:Integer"


def _instruction_records(name: str) -> dict[str, Any]:
    identity = name.removesuffix(".jsonl")
    fields = [_field(identity, field, "sc:Text", text, _column(name, field)) for field, text in _RECORD_FIELDS]
    frames = _field(identity, "input_video", "sc:Text", "Frames it is about, likewise.", _column(name, "input_video"))
    fields.append({**frames, "repeated": True})
    return _record_set(identity, "Instruction records.", fields, key=None)


def _record_set(name: str, text: str, fields: list[dict[str, Any]], key: str | None = "key") -> dict[str, Any]:
    record_set = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": text, "field": fields}
    return record_set if key is None else {**record_set, "key": {"@id": f"{name}/{key}"}}


def _field(owner: str, name: str, kind: str | list[str], text: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{owner}/{name}",
        "name": name,
        "description": text,
        "dataType": kind,
        "source": source,
    }


def _column(file: str, column: str) -> dict[str, Any]:
    return {"fileObject": {"@id": file}, "extract": {"column": column}}
