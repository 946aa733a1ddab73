"""Croissant metadata: what 1.0 asks for, checksums that hold, references that resolve."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.instruct.stage import write_instructions
from mmdata.publish.croissant import CONFORMS_TO, croissant
from tests.support import modalities, tiny_release, workspaces


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    tiny = tiny_release.build(tmp_path_factory.mktemp("croissant"), samples=40)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    folder = Path(str(tiny.folder))
    made = croissant(json.loads((folder / "manifest.json").read_bytes()))
    (folder / "croissant.json").write_text(json.dumps(made))
    return made, folder


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_required_properties_are_there_and_unknown_ones_are_not_made_up(described: tuple[dict[str, Any], Path]) -> None:
    made, _ = described
    assert made["@type"] == "sc:Dataset"
    assert made["conformsTo"] == CONFORMS_TO
    assert {"@context", "name", "description", "datePublished", "distribution", "recordSet"} <= set(made)
    assert not {"license", "creator", "url"} & set(made)


def test_every_file_exists_with_its_checksum_and_size(described: tuple[dict[str, Any], Path]) -> None:
    made, folder = described
    files = [node for node in made["distribution"] if node["@type"] == "cr:FileObject"]
    assert sum(node["encodingFormat"] == "application/x-tar" for node in files) == 2
    for node in files:
        data = (folder / node["contentUrl"]).resolve().read_bytes()
        assert node["sha256"] == hashlib.sha256(data).hexdigest()
        assert node["contentSize"] == f"{len(data)} B"


def test_ids_are_unique_and_references_resolve(described: tuple[dict[str, Any], Path]) -> None:
    made, _ = described
    body = {key: value for key, value in made.items() if key != "@context"}
    defined = [node["@id"] for node in nodes(body) if "@id" in node and len(node) > 1]
    references = {node["@id"] for node in nodes(body) if set(node) == {"@id"}}
    assert len(defined) == len(set(defined))
    assert references and references <= set(defined)


def test_every_term_is_in_the_context(described: tuple[dict[str, Any], Path]) -> None:
    made, _ = described
    plain = {"name", "description", "identifier", "keywords", "distribution", "datePublished", "containedIn"}
    plain |= {"contentUrl", "contentSize", "encodingFormat", "sha256"}  # schema.org's own, by @vocab
    body = {key: value for key, value in made.items() if key != "@context"}
    used = {key for node in nodes(body) for key in node if not key.startswith(("@", "splits/"))}
    assert used <= plain | set(made["@context"])


def test_columns_named_exist(described: tuple[dict[str, Any], Path]) -> None:
    made, folder = described
    columns = {"index.parquet": set(pl.read_parquet_schema(folder / "index.parquet"))}
    for split in ("train", "validation"):
        name = f"instruct-record-{split}.jsonl"
        columns[name] = set(json.loads((folder / name).read_text().split("\n", 1)[0]))
    for node in nodes(made["recordSet"]):
        if "column" in node.get("extract", {}):
            assert node["extract"]["column"] in columns[node["fileObject"]["@id"]]


def test_a_manifest_without_shards_or_files_is_described_too() -> None:
    made = croissant({"release_id": "0" * 16, "shards": []})
    assert made["distribution"] == []
    assert json.dumps(made)


def test_mlcroissant_reads_it(described: tuple[dict[str, Any], Path]) -> None:
    if importlib.util.find_spec("mlcroissant") is None:
        pytest.skip("mlcroissant is not installed")
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(described[1] / "croissant.json"))
    assert {record_set.name for record_set in dataset.metadata.record_sets} >= {"samples", "images", "captions"}
    samples = list(dataset.records("samples"))
    assert len(samples) == len(pl.read_parquet(described[1] / "index.parquet"))


def test_frames_and_sound_are_described_where_there_are_any(
    described: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    built = modalities.build(tmp_path, instruct={"tasks": ["step_caption", "transcribe"]})
    folder = Path(built.workspace.release_dir(workspaces.release(built)).path)
    made = json.loads((folder / "croissant.json").read_text())
    sets = {node["name"]: node for node in made["distribution"] if node["@type"] == "cr:FileSet"}
    assert {"frames-in-shards", "sounds-in-shards"} <= set(sets)
    assert not {"frames-in-shards", "sounds-in-shards"} & {node["name"] for node in described[0]["distribution"]}
    names = []
    for path in built.workspace.shards_dir.glob("*.tar"):
        with tarfile.open(path.path) as tar:
            names += tar.getnames()

    def matching(name: str) -> set[str]:
        node = sets[f"{name}-in-shards"]
        patterns = [node["includes"]] if isinstance(node["includes"], str) else node["includes"]
        found = {one for one in names if any(fnmatch(one, pattern) for pattern in patterns)}
        return {one for one in found if not any(fnmatch(one, pattern) for pattern in node.get("excludes", []))}

    assert matching("images") == {one for one in names if one.count(".") == 1 and one.endswith(".jpg")}
    assert matching("frames") == {one for one in names if one.count(".") == 2}
    assert matching("sounds") == {one for one in names if one.endswith(".flac")}
    columns = set(pl.read_parquet_schema(folder / "index.parquet"))
    index = next(node for node in made["recordSet"] if node["name"] == "samples")
    assert {field["source"]["extract"]["column"] for field in index["field"]} <= columns
    if importlib.util.find_spec("mlcroissant") is None:
        return
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert len(list(dataset.records("samples"))) == len(pl.read_parquet(folder / "index.parquet"))
    records = list(dataset.records("instruct-record-train"))
    lines = (folder / "instruct-record-train.jsonl").read_text().count("\n")
    assert len(records) == lines


def test_the_description_names_the_scorer_of_the_manifest(described: tuple[dict[str, Any], Path]) -> None:
    assert "Image-text scores are by demo (small offline scorer)." in described[0]["description"]
    assert "scores are by" not in croissant({"release_id": "0" * 16, "scorer": None})["description"]
