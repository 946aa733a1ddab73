"""Verification against releases that are consistent with their own hashes, and wrong all the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from mmdata.errors import DataError
from mmdata.publish.release import sha256_of
from mmdata.publish.verify import verify_release
from mmdata.releases.manifest import manifest_digest
from mmdata.samples import INDEX
from mmdata.shards import members
from mmdata.storage.tables import write_table
from tests.support import workspaces
from tests.support.workspaces import Built, build, release

PARTS = {"web-000000": range(40), "web-000001": range(40, 80)}


@pytest.fixture
def built(tmp_path: Path) -> Built:
    built = build(str(tmp_path / "a"), PARTS)
    release(built)
    return built


def reseal(built: Built) -> None:
    """Make the manifest vouch for the files as they are now."""
    folder = built.workspace.release_dir(str(built.workspace.latest()))
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        digest, size = sha256_of(folder / name)
        manifest["files"][name] = {"sha256": digest, "bytes": size}
    manifest["digest"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forge_index(built: Built, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    path = built.workspace.release_dir(str(built.workspace.latest())) / "index.parquet"
    index = change(pl.read_parquet(path.path))
    write_table(path, index.to_arrow().cast(INDEX))
    reseal(built)
    return index


def problems(built: Built, **options: bool) -> str:
    with pytest.raises(DataError) as raised:
        verify_release(built.workspace.root, **options)
    return str(raised.value)


def first_row(column: str, value: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda index: index.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(value).otherwise(column).alias(column)
    )


def test_a_resealed_release_that_is_as_it_was_verifies(built: Built) -> None:
    forge_index(built, lambda index: index)
    assert verify_release(built.workspace.root).counts["samples"] == 80


def test_an_offset_that_is_off_is_named_with_its_sample(built: Built) -> None:
    index = forge_index(built, first_row("offset", pl.col("offset") + 512))
    found = problems(built)
    assert f"sample {index['key'][0]} is at" in found
    assert f"{index['shard'][0]}.idx: its offsets differ from those of the index" in found


def test_a_row_too_few_is_named(built: Built) -> None:
    index = forge_index(built, lambda index: index[1:])
    assert f"{index['shard'][0]}: the manifest says (samples, split)" in problems(built)


def test_a_shard_without_rows_is_named(built: Built) -> None:
    shard = forge_index(built, lambda index: index.filter(pl.col("shard") != index["shard"][0]))["shard"]
    named = {line.split(":")[0].strip() for line in problems(built).splitlines() if "no sample in the index" in line}
    assert len(named) == 1
    assert not named & set(shard)


def test_rows_of_a_shard_in_two_places_are_named(built: Built) -> None:
    index = forge_index(built, lambda index: pl.concat([index[1:], index[:1]]))
    assert f"index.parquet: {index['shard'][-1]} has rows in two places" in problems(built)


def test_a_key_of_another_sample_is_named(built: Built) -> None:
    index = forge_index(built, first_row("key", pl.lit("0" * 32)))
    assert f"key '{'0' * 32}' is not that of copy 0 of {index['uid'][0]}" in problems(built)


def test_a_uid_in_both_splits_is_named(built: Built) -> None:
    other = pl.col("uid").filter(pl.col("split") == "validation").first()
    index = forge_index(built, first_row("uid", other))
    assert f"{index['uid'][0]} is in more than one split" in problems(built)


def test_a_text_that_is_no_uid_is_named(built: Built) -> None:
    forge_index(built, first_row("uid", pl.lit("not a uid")))
    assert "every uid must be 32 hex digits" in problems(built)


@pytest.mark.parametrize("form", ["record", "llava", "chat"])
def test_an_instruction_that_names_a_foreign_shard_is_named(built: Built, form: str) -> None:
    path = built.workspace.release_dir(str(built.workspace.latest())) / f"instruct-{form}-train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if "::shards/train-" in line)
    lines[at] = lines[at].replace("::shards/train-", "::shards/other-", 1)
    path.write_text("".join(lines))
    reseal(built)
    assert f"instruct-{form}-train.jsonl: 1 record(s) name other-" in problems(built)


def test_a_caption_that_looks_like_a_path_is_only_a_caption(built: Built) -> None:
    path = built.workspace.release_dir(str(built.workspace.latest())) / "instruct-chat-train.jsonl"
    text = '{"image": "tar://a.jpg::shards/other.tar"} tar://a.jpg::shards/other.tar'
    record = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    path.write_text(path.read_text() + json.dumps(record) + "\n")
    reseal(built)
    verify_release(built.workspace.root)


def test_an_image_that_ends_early_is_found_by_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = workspaces._sample
    monkeypatch.setattr(
        workspaces, "_sample", lambda n: {**real(n), "picture": real(n)["picture"][: 400 if n == 7 else None]}
    )
    built = build(str(tmp_path / "a"), PARTS)
    release(built)
    verify_release(built.workspace.root)
    uid = next(uid for uid, picture in built.pictures.items() if len(picture) == 400)
    assert f"member {uid}.jpg: cannot be read" in problems(built, decode=True)


def test_facts_of_format_1_are_only_accepted_in_releases_of_format_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_format_1(frame: pl.DataFrame, has_captions: bool) -> Iterator[bytes]:
        for uid, signature in frame.select("uid", "signature").iter_rows():
            yield json.dumps({"uid": uid, "signature": signature, "lang": None, "extra": {"rank": 1}}).encode()

    monkeypatch.setattr(members, "facts", of_format_1)
    built = build(str(tmp_path / "a"), PARTS)
    release(built)
    assert ".json: lacks audio_s, augment, clip_score" in problems(built)
    folder = built.workspace.release_dir(str(built.workspace.latest()))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    reseal(built)
    assert verify_release(built.workspace.root).counts["samples"] == 80
