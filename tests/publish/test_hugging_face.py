"""Releases in Hugging Face `datasets`: with copies, nulls and columns whose type differs from source to source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest

from mmdata.publish.hugging_face import FEATURES_FILE
from mmdata.publish.verify import verify_release
from mmdata.releases.manifest import open_release
from mmdata.shards.facts import FACTS
from mmdata.workspace.layout import Catalog, Part, Workspace
from tests.support import modalities
from tests.support.workspaces import SELECT_ALL, Built, release

REPEATED = {**SELECT_ALL, "oversample": {"threshold": 1.0, "max_repeats": 3}}
LICENSES = ([None] * 9 + ["CC0"], [5], [2.5, "CC-BY"], [["a"], [], {"name": "MIT"}])
"""Of each part, in turn: what the source's column `license` holds."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of pictures from four parts, some of them in copies."""
    root = tmp_path_factory.mktemp("pictures")
    corpus = modalities.corpus_at(root, select=REPEATED, shards={"shard_mb": 0.02})
    built = Built(corpus, Workspace(root))
    numbers = {f"web-{part:06d}": range(20 * part, 20 * part + 20) for part in range(len(LICENSES))}
    catalog = {name: Part(name, "web", "inbox/x", 0, 20, name) for name in numbers}
    built.workspace.write_catalog(Catalog(parts=catalog))
    for (name, own), licenses in zip(numbers.items(), LICENSES, strict=True):
        modalities.finish(built, catalog[name], [_picture(number, licenses) for number in own])
    release(built)
    return built


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of pictures, clips with and without sound, recordings and texts."""
    built = modalities.build(tmp_path_factory.mktemp("mixed"), select=REPEATED)
    release(built)
    return built


def _picture(number: int, licenses: list[Any]) -> dict[str, Any]:
    own = modalities.picture(10 * number + 1) | {"row": number}
    unknown = {"lang": None, "original_width": None, "clip_score": None} if number % 3 else {"clip_score": 1.0}
    extra = {"license": licenses[number % len(licenses)], "rank": number if number % 2 else None}
    return own | unknown | {"extra": json.dumps(extra)}


def load(built: Built, cache: Path, **options: Any) -> Any:
    opened = open_release(built.workspace.root)
    files = [str(built.workspace.shards_dir / s["name"]) for s in opened.manifest["shards"] if s["split"] == "train"]
    return datasets.load_dataset(
        "webdataset", data_files={"train": files}, split="train", cache_dir=str(cache), **options
    )


def train_keys(built: Built) -> list[str]:
    index = pl.read_parquet(open_release(built.workspace.root).folder.path + "/index.parquet")
    return index.filter(pl.col("split") == "train")["key"].to_list()


@pytest.mark.parametrize("streaming", [True, False])
def test_copies_nulls_and_mixed_sources_load(pictures: Built, tmp_path: Path, streaming: bool) -> None:
    rows = list(load(pictures, tmp_path, streaming=streaming))
    assert [row["__key__"] for row in rows] == train_keys(pictures)
    copies = [row for row in rows if "_r" in row["__key__"]]
    assert len(copies) >= 3
    assert all(0 < row["json"]["augment"] < 2**53 for row in copies)
    for row in rows:
        assert row["json"]["uid"] == row["__key__"][:32]
        assert set(json.loads(row["json"]["extra"])) == {"license", "rank"}
    values = [json.loads(row["json"]["extra"])["license"] for row in rows]
    assert {type(value) for value in values} == {type(None), str, int, float, list, dict}


def test_any_first_shard_gives_the_same_columns(pictures: Built, tmp_path: Path) -> None:
    """`datasets` infers the columns from the first five samples of the first file."""
    found = set()
    shards = open_release(pictures.workspace.root).manifest["shards"]
    assert len(shards) > 5
    for number, shard in enumerate(shards):
        path = str(pictures.workspace.shards_dir / shard["name"])
        loaded = datasets.load_dataset(
            "webdataset",
            data_files={"train": [path]},
            split="train",
            cache_dir=str(tmp_path / str(number)),
            streaming=True,
        )
        found.add(json.dumps(loaded.features.to_dict(), sort_keys=True))
    assert len(found) == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_a_release_of_every_signature_loads_with_its_features(mixed: Built, tmp_path: Path, streaming: bool) -> None:
    folder = open_release(mixed.workspace.root).folder
    features = datasets.Features.from_dict(json.loads((folder / FEATURES_FILE).read_text()))
    rows = {row["__key__"]: row for row in load(mixed, tmp_path, streaming=streaming, features=features)}
    assert sorted(rows) == sorted(train_keys(mixed))
    for row in rows.values():
        facts = row["json"]
        kinds = facts["signature"].split("+")
        assert (row["jpg"] is not None) == ("image" in kinds)
        assert (row["000.jpg"] is not None) == ("video" in kinds)
        assert (row["flac"] is not None) == ("audio" in kinds)
        assert row["txt"] == mixed.captions[facts["uid"]]


def test_the_features_are_listed_in_the_manifest_and_hold_every_fact(mixed: Built) -> None:
    opened = open_release(mixed.workspace.root)
    data = (opened.folder / FEATURES_FILE).read_bytes()
    assert opened.manifest["files"][FEATURES_FILE]["sha256"] == hashlib.sha256(data).hexdigest()
    assert set(json.loads(data)["json"]) == {fact.name for fact in FACTS}
    verify_release(mixed.workspace.root)
