"""Instruction records: three forms of one conversation, tied to the release that their pictures lie in."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.errors import DataError, UserError
from mmdata.instruct.forms import FORMS, Record
from mmdata.instruct.media_paths import data_uri, member_path
from mmdata.score.preprocess import Preprocess
from mmdata.workspace.layout import Workspace
from tests.support import workspaces
from tests.support.made_release import RELEASE, Sample, jpeg, seal, shard_of, write_release
from tests.training.conftest import upload
from training.data.examples import Example, Instructions
from training.data.media_tensors import MediaSpec
from training.data.records import MAX_IMAGES, Records, open_records
from training.data.sample_index import TrainingRelease, open_training_release, row_uid
from training.data.sample_reader import SampleReader
from training.data.text_codec import MEDIA_PLACEHOLDER

SPEC = MediaSpec(Preprocess(size=(16, 16)))
TASKS = ["caption", "reference_image", "text_to_image"]
EVIL = 'a <image> of "two\nlines" \u2028 <|im_end|> {braces} 猫'


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> TrainingRelease:
    """A release of the publish stages, its records in all forms, paths into shards."""
    return published(tmp_path_factory.mktemp("paths"), "path")


def published(root: Path, images: str) -> TrainingRelease:
    instruct = {"tasks": TASKS, "formats": ["record", "llava", "chat"], "images": images}
    built = workspaces.build(str(root / "workspace"), {"web-000000": range(40)}, instruct=instruct)
    workspaces.release(built)
    return open_training_release(str(root / "workspace"), root / "cache")


def examples(release: TrainingRelease, form: str, split: str = "train") -> dict[str, Example]:
    records = open_records(release, form, split, None)
    samples = release.samples(split)
    source = Instructions(records, samples, SampleReader(release), SPEC)
    return {example.uid: example for example in map(source.read, range(len(source)))}


def lines(release: TrainingRelease, form: str, split: str) -> list[dict[str, Any]]:
    path = release.release.folder / f"instruct-{form}-{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(ours_by_uid: dict[str, Example], theirs_by_uid: dict[str, Example]) -> bool:
    assert ours_by_uid.keys() == theirs_by_uid.keys()
    for name, example in ours_by_uid.items():
        assert example.turns == theirs_by_uid[name].turns
        ours, theirs = example.media.pictures, theirs_by_uid[name].media.pictures
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    return True


def test_the_three_forms_are_one_conversation(real: TrainingRelease) -> None:
    for split in ("train", "validation"):
        of_records = examples(real, "record", split)
        assert len(of_records) > 5
        assert same(of_records, examples(real, "llava", split))
        assert same(of_records, examples(real, "chat", split))
    pictures = Counter(
        len(example.media.pictures)
        for example in examples(real, "record").values()
        if example.media.pictures is not None
    )
    assert pictures[1] > 5
    assert pictures[2] > 5, "reference_image shows two"


def test_records_with_embedded_pictures_are_the_same_ones(real: TrainingRelease, tmp_path: Path) -> None:
    embedded = published(tmp_path, "base64")
    for form in FORMS:
        assert "data:image/jpeg;base64," in json.dumps(lines(embedded, form, "train"))
        assert same(examples(real, "record"), examples(embedded, form))


def test_each_record_is_its_own_samples(real: TrainingRelease) -> None:
    records, samples = open_records(real, "record", "train", None), real.samples("train")
    for at in range(len(records.index)):
        record = records.record(at)
        paths = [record[name] for name in ("input_image", "reference_image") if record[name]]
        held = [row_uid(samples[row]) for row in records.rows_of(at)]
        assert held == [path.removeprefix("tar://")[:32] for path in paths]
        assert records.index[at]["images"] == len(paths)
        assert records.index[at]["tokens"] > len(record["instruction"].split())


@pytest.mark.parametrize("form", FORMS)
def test_answers_that_are_pictures_are_left_out_and_counted(real: TrainingRelease, form: str) -> None:
    drawn = sum(record["task"] == "text_to_image" for record in lines(real, form, "train"))
    assert drawn > 5
    records = open_records(real, form, "train", None)
    assert records.left_out == drawn
    assert len(records.index) + drawn == len(lines(real, form, "train"))
    assert "text_to_image" not in {records.record(at)["task"] for at in range(len(records.index))}


def test_only_the_tasks_asked_for_are_read(real: TrainingRelease) -> None:
    tasks = Counter(record["task"] for record in lines(real, "chat", "train"))
    records = open_records(real, "chat", "train", ["reference_image"])
    assert len(records.index) == tasks["reference_image"] > 5
    assert records.left_out == tasks.total() - tasks["reference_image"]
    assert {records.record(at)["task"] for at in range(len(records.index))} == {"reference_image"}
    assert len(open_records(real, "chat", "train", None).index) > len(records.index), "each choice has its own index"
    assert len(open_records(real, "chat", "train", []).index) == 0


def test_each_split_has_its_own_samples_only(real: TrainingRelease) -> None:
    uids_by_split = {split: {row_uid(row) for row in real.samples(split)} for split in ("train", "validation")}
    assert not uids_by_split["train"] & uids_by_split["validation"]
    for form in FORMS:
        for split, uids in uids_by_split.items():
            assert {uid[:32] for uid in examples(real, form, split)} <= uids
            named = {
                path[6:38]
                for record in lines(real, form, split)
                for path in json.dumps(record).split('"')
                if path[:6] == "tar://"
            }
            assert named <= uids


@pytest.fixture
def fragile(tmp_path: Path) -> Workspace:
    """A release to break: two pictures and records of them, one with hostile words."""
    samples = [
        Sample("a cat", {"jpg": jpeg(1)}),
        Sample("a dog", {"jpg": jpeg(2)}),
        Sample("held out", {}, "validation"),
    ]
    workspace = write_release(tmp_path / "own", samples)
    path = member_path(samples[0].uid, "jpg", shard_of(workspace, samples[0].uid))
    records = [
        Record(f"{samples[0].uid}-caption", "caption", "en", f"Describe. {EVIL}", f"A cat; {EVIL}", path),
        Record(f"{samples[1].uid}-qa", "text_qa", "en", "What is {0}?", ""),
        Record(f"{samples[0].uid}-embedded", "caption", "en", "And this?", "a dog", data_uri(".jpg", jpeg(2)), path),
    ]
    return write_release(tmp_path / "own", samples, records)


def opened(workspace: Workspace, tmp_path: Path, form: str = "record") -> Records:
    return open_records(open_training_release(str(workspace.root), tmp_path / "cache"), form, "train", None)


def rewrite(workspace: Workspace, change: Any, form: str = "record", sealed: bool = True) -> Path:
    """Change the text of a JSONL file; sealed: the manifest says that it belongs so."""
    path = Path(str(workspace.release_dir(RELEASE) / f"instruct-{form}-train.jsonl"))
    path.write_text(change(path.read_text()))
    if sealed:
        seal(workspace)
    return path


def test_hostile_words_are_words_in_every_form(fragile: Workspace, tmp_path: Path) -> None:
    release = open_training_release(str(fragile.root), tmp_path / "cache")
    of_records = examples(release, "record")
    assert same(of_records, examples(release, "chat"))
    for form in FORMS:
        of_form = examples(release, form)
        assert len(of_form) == 3
        for name, example in of_form.items():
            pictures = example.media.pictures
            marks = "".join(turn.text for turn in example.turns).count(MEDIA_PLACEHOLDER)
            assert marks == (0 if pictures is None else len(pictures))
            assert [turn.role for turn in example.turns] == ["user", "assistant"]
            assert example.turns[1].text.replace("[image]", "<image>") == of_records[name].turns[1].text
    hostile = next(example for name, example in of_records.items() if name.endswith("-caption"))
    assert hostile.turns[0].text == f"{MEDIA_PLACEHOLDER}\nDescribe. {EVIL}"
    both = next(example for name, example in of_records.items() if name.endswith("embedded")).media.pictures
    assert both is not None
    assert not torch.equal(both[0], both[1])
    assert hostile.media.pictures is not None
    assert torch.equal(both[1], hostile.media.pictures[0])


@pytest.mark.parametrize("form", FORMS)
def test_a_record_naming_a_foreign_shard_is_named(fragile: Workspace, tmp_path: Path, form: str) -> None:
    foreign = "train-c0000-00000-0123456789ab.tar"
    ours = shard_of(fragile, Sample("a cat").uid)
    rewrite(fragile, lambda text: text.replace(ours, foreign), form)
    with pytest.raises(DataError, match=rf"instruct-{form}-train\.jsonl: line 1: .*{foreign}' is no member of a shard"):
        opened(fragile, tmp_path, form)


@pytest.mark.parametrize("path", ["https://example.org/a.jpg", "../../etc/passwd", "tar://x.jpg::shards/a.tar", "data"])
def test_nothing_but_shards_is_opened(fragile: Workspace, tmp_path: Path, path: str) -> None:
    record = {"instruction": "?", "output": "!", "input_image": path, "reference_image": None}
    rewrite(fragile, lambda text: text + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"line 4: .* is no member of a shard of this release"):
        opened(fragile, tmp_path)


def test_a_picture_that_is_not_in_the_split_is_named(fragile: Workspace, tmp_path: Path) -> None:
    shard, held_out = shard_of(fragile, Sample("a cat").uid), Sample("held out").uid
    rewrite(fragile, lambda text: text.replace(f"tar://{Sample('a cat').uid}", f"tar://{held_out}"))
    with pytest.raises(DataError, match=r"line 1: its sample is not in the index of this release's split"):
        opened(fragile, tmp_path)
    assert shard


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not an instruction record"),
        ("[1]", "neither `instruction` nor"),
        ("7", "not an instruction record"),
        ('{"instruction": 7, "output": "a"}', "not an instruction record"),
        ('{"conversations": [{"from": "gpt", "value": null}]}', "not an instruction record"),
        ('{"messages": [{"role": "user"}]}', "not an instruction record"),
        ('{"messages": 7}', "not an instruction record"),
        ('{"conversations": [{"from": "human", "value": "<image>"}]}', "1 <image> markers for 0 of them"),
        ("", "not an instruction record"),
    ],
)
def test_a_line_that_is_no_record_is_named(fragile: Workspace, tmp_path: Path, line: str, says: str) -> None:
    rewrite(fragile, lambda text: f"{text}{line}\n")
    with pytest.raises(DataError, match=rf"instruct-record-train\.jsonl: line 4: .*{says}"):
        opened(fragile, tmp_path)
    assert not list((tmp_path / "cache").glob("*/records-*")), "nothing half-made is left"


def test_too_many_pictures_in_one_record_are_named(fragile: Workspace, tmp_path: Path) -> None:
    uri = data_uri(".jpg", jpeg(1))
    turns = [{"from": "human", "value": "<image>" * (MAX_IMAGES + 1)}, {"from": "gpt", "value": "a"}]
    record = {"image": [uri] * (MAX_IMAGES + 1), "conversations": turns}
    rewrite(fragile, lambda text: text + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"line 4: 33 pictures, over 32"):
        opened(fragile, tmp_path)


def test_an_edited_file_is_refused_before_and_after_it_is_indexed(fragile: Workspace, tmp_path: Path) -> None:
    edited = r"instruct-record-train\.jsonl: is not the one of the manifest: it was edited"
    rewrite(fragile, lambda text: text.replace("A cat", "A bat"), sealed=False)
    with pytest.raises(DataError, match=edited):
        opened(fragile, tmp_path)
    path = rewrite(fragile, lambda text: text.replace("A bat", "A cat"), sealed=False)
    records = opened(fragile, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"{ " + whole)
    with pytest.raises(DataError, match="is missing or not the one of the manifest"):
        opened(fragile, tmp_path)
    with pytest.raises(DataError, match=r"instruct-record-train\.jsonl: at byte \d+ there is no record"):
        records.record(1)
    path.unlink()
    with pytest.raises(DataError, match="is missing or not the one of the manifest"):
        opened(fragile, tmp_path)


def test_a_form_that_the_release_lacks_names_those_it_has(fragile: Workspace, tmp_path: Path) -> None:
    folder = fragile.release_dir(RELEASE)
    (folder / "instruct-chat-train.jsonl").unlink()
    seal(fragile)
    with pytest.raises(UserError, match=r"no instruct-chat-train\.jsonl; it has: .*instruct-record-train\.jsonl"):
        opened(fragile, tmp_path, "chat")


def test_records_over_s3_equal_local_ones(fragile: Workspace, bucket: str, tmp_path: Path) -> None:
    there = open_training_release(upload(fragile.root, bucket), tmp_path / "there")
    here = open_training_release(str(fragile.root), tmp_path / "here")
    for form in FORMS:
        assert same(examples(here, form), examples(there, form))
    assert np.array_equal(
        open_records(there, "chat", "train", None).index, open_records(here, "chat", "train", None).index
    )
