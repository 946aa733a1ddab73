"""The instructions stage, on a small release with real shards."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmdata.errors import DataError
from mmdata.instruct.media_paths import read_member
from mmdata.instruct.stage import write_instructions
from mmdata.workspace.layout import Catalog, Part, Workspace
from tests.support import modalities, tiny_release
from tests.support.tiny_release import Tiny
from tests.support.workspaces import SELECT_ALL, Built, release

FORMS, SPLITS = ("record", "llava", "chat"), ("train", "validation")


def lines(tiny: Tiny, form: str, split: str) -> list[dict[str, Any]]:
    data = (tiny.folder / f"instruct-{form}-{split}.jsonl").read_bytes().decode()
    assert len(data.splitlines()) == data.count("\n")  # also for readers that break lines at U+2028
    return [json.loads(text) for text in data.split("\n")[:-1]]


def pictures(record: dict[str, Any]) -> list[str]:
    return [record[name] for name in ("input_image", "reference_image", "output_image") if record[name] is not None]


def says(instruction: str, caption: str) -> bool:
    return f"{caption}\x00" in instruction.replace("”", "\x00") or instruction.endswith(caption)


def test_every_form_holds_the_same_records_in_the_same_order(tiny: Tiny) -> None:
    for split in SPLITS:
        ids = [[one["id"] for one in lines(tiny, form, split)] for form in FORMS]
        assert ids[0] == ids[1] == ids[2]
        assert len(set(ids[0])) == len(ids[0]) > 100


def test_every_picture_resolves_to_the_bytes_of_its_sample(tiny: Tiny) -> None:
    seen = 0
    for split in SPLITS:
        for record in lines(tiny, "record", split):
            for path in pictures(record):
                assert read_member(path, tiny.workspace.root) == tiny.picture[path[len("tar://") :][:32]]
                seen += 1
    assert seen > 1000


def test_a_path_is_one_that_fsspec_opens(tiny: Tiny) -> None:
    path = pictures(lines(tiny, "record", "train")[0])[0]
    absolute = path.replace("::", f"::{tiny.workspace.root}/")
    with fsspec.open(absolute, "rb") as file:
        assert file.read() == read_member(path, tiny.workspace.root)


def test_no_record_reaches_across_splits(tiny: Tiny) -> None:
    captions_of_other = {
        split: {tiny.caption[uid] for uid, one in tiny.split.items() if one != split} for split in SPLITS
    }
    for split in SPLITS:
        for record in lines(tiny, "record", split):
            assert tiny.split[record["id"][:32]] == split
            assert all(tiny.split[path[len("tar://") :][:32]] == split for path in pictures(record))
            assert not any(says(record["instruction"], text) for text in captions_of_other[split])


def test_only_first_copies_give_records(tiny: Tiny) -> None:
    assert all("_r" not in path for record in lines(tiny, "record", "train") for path in pictures(record))


def test_yes_and_no_are_balanced_and_true(tiny: Tiny) -> None:
    answers = {"Yes": True, "是": True, "No": False, "否": False}
    said: list[bool] = []
    for record in lines(tiny, "record", "train"):
        if record["task"] == "match":
            own = tiny.caption[record["id"][:32]].strip()
            said.append(answers[record["output"]])
            assert says(record["instruction"], own) == said[-1]
    assert len(said) > 200
    assert abs(sum(said) / len(said) - 0.5) < 0.1


def test_hard_negatives_are_nearer_than_chance(tiny: Tiny) -> None:
    """Captions of a kind go with embeddings of a kind: a near picture's caption is mostly of the same kind."""
    same = []
    for record in lines(tiny, "record", "train"):
        if record["task"] == "match" and record["output"] in ("No", "否"):
            own = next((kind for kind in tiny_release.KINDS if kind in tiny.caption[record["id"][:32]]), None)
            if own is not None:
                same.append(own in record["instruction"])
    assert sum(same) / len(same) > 0.3  # by chance: about 0.2 at most, since most of a kind overlap in words


def test_references_are_similar_pictures(tiny: Tiny) -> None:
    same = []
    for record in lines(tiny, "record", "train"):
        if record["task"] == "reference_image":
            ours, theirs = (tiny.caption[path[len("tar://") :][:32]] for path in pictures(record))
            assert ours != theirs
            own = next((kind for kind in tiny_release.KINDS if kind in ours), None)
            if own is not None:
                same.append(own in theirs)
    assert sum(same) / len(same) > 0.6


def test_detailed_captions_are_long_and_asked_once(tiny: Tiny) -> None:
    tasks = {"caption": set(), "detailed_caption": set()}
    for record in lines(tiny, "record", "train"):
        if record["task"] in tasks:
            tasks[record["task"]].add(record["id"][:32])
            assert record["output"] == tiny.caption[record["id"][:32]].strip()
    assert tasks["detailed_caption"]
    assert not tasks["caption"] & tasks["detailed_caption"]
    assert all(len(tiny.caption[uid].split()) >= 24 for uid in tasks["detailed_caption"])


def test_questions_come_from_the_sources_own_columns_and_need_no_picture(tiny: Tiny) -> None:
    found = [record for record in lines(tiny, "record", "train") if record["task"] == "text_qa"]
    assert found
    for record in found:
        assert pictures(record) == []
        assert "plus one?" in record["instruction"] and record["output"].isdigit()


def test_an_image_to_be_made_is_no_text(tiny: Tiny) -> None:
    found = [record for record in lines(tiny, "record", "train") if record["task"] == "text_to_image"]
    assert all(r["output"] is None and r["output_image"] and r["input_image"] is None for r in found) and found


def test_same_release_gives_same_bytes_and_is_not_written_again(tiny: Tiny, tmp_path: Path) -> None:
    other = tiny_release.build(tmp_path, samples=400)
    first = write_instructions(other.corpus, other.workspace)
    for name in (f"instruct-{form}-{split}.jsonl" for form in FORMS for split in SPLITS):
        assert (other.folder / name).read_bytes() == (tiny.folder / name).read_bytes(), name
    stamp = (other.folder / "instruct-chat-train.jsonl").stat().st_mtime_ns
    again = write_instructions(other.corpus, other.workspace)
    assert (first.slices_reused, again.slices_reused) == (0, 1)
    assert again.counts == first.counts
    assert (other.folder / "instruct-chat-train.jsonl").stat().st_mtime_ns == stamp


def test_a_missing_file_is_written_again(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=40)
    write_instructions(tiny.corpus, tiny.workspace)
    lost = tiny.folder / "instruct-llava-train.jsonl"
    before = lost.read_bytes()
    lost.unlink()
    write_instructions(tiny.corpus, tiny.workspace)
    assert lost.read_bytes() == before


def test_a_published_release_is_never_rewritten(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=40)
    write_instructions(tiny.corpus, tiny.workspace)
    tiny_release.publish(tiny)
    changed = tiny.corpus.model_copy(update={"seed": 5})
    with pytest.raises(DataError, match="changed since its samples were selected"):
        write_instructions(changed, tiny.workspace)


def test_instructions_json_tells_counts_and_hashes(tiny: Tiny) -> None:
    facts = json.loads((tiny.folder / "instructions.json").read_bytes())
    assert set(facts["files"]) == {f"instruct-{form}-{split}.jsonl" for form in FORMS for split in SPLITS}
    for name, one in facts["files"].items():
        data = (tiny.folder / name).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert one["records"] == data.count(b"\n")
    counts = facts["counts"]
    assert counts["records"] == sum(counts["by_task"].values()) == sum(counts["by_language"].values())
    assert counts["by_split"] == {split: len(lines(tiny, "record", split)) for split in SPLITS}
    assert sum(entry["records"] for entry in facts["table"]) == counts["records"]


def test_languages_are_drawn_evenly_where_the_answer_allows_both(tiny: Tiny) -> None:
    said = Counter((r["task"], r["lang"]) for r in lines(tiny, "record", "train") if r["task"] in ("match", "caption"))
    assert 0.35 < said["match", "zh"] / (said["match", "en"] + said["match", "zh"]) < 0.65
    assert said["caption", "zh"] <= 1, "one caption is Chinese"


def test_base64_puts_the_pictures_into_the_records(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=24, images="base64", formats=["record", "chat"])
    write_instructions(tiny.corpus, tiny.workspace)
    for record in lines(tiny, "record", "train"):
        for uri in pictures(record):
            kind, _, data = uri.partition(",")
            assert kind == "data:image/jpeg;base64"
            assert base64.b64decode(data) == read_member(uri, tmp_path)
            assert base64.b64decode(data) in tiny.picture.values()


@pytest.mark.parametrize("samples", [0, 1, 2, 3])
def test_tiny_releases_give_valid_files(tmp_path: Path, samples: int) -> None:
    tiny = tiny_release.build(tmp_path, samples=samples)
    report = write_instructions(tiny.corpus, tiny.workspace)
    assert report.counts["samples"] == samples
    assert len(lines(tiny, "record", "train")) == report.counts["rows"]
    assert samples or not report.text, "a release without samples has a greater problem than its instructions"


def test_a_record_asks_for_the_captions_own_language(tiny: Tiny) -> None:
    for record in lines(tiny, "record", "train"):
        if record["task"] == "caption" and not any(text in record["output"] for text in tiny_release.EVIL):
            assert ("请用英语回答" in record["instruction"]) == (record["lang"] == "zh")


def test_without_shards_the_error_names_the_remedy(tmp_path: Path) -> None:
    tiny = tiny_release.build(tmp_path, samples=8)
    (tiny.folder / "index.parquet").unlink()
    with pytest.raises(DataError, match=r"`mmdata build` \(`shards`\)"):
        write_instructions(tiny.corpus, tiny.workspace)


def built_of(root: Path, source: str, samples: list[dict[str, Any]], **instruct: Any) -> Built:
    """A release of one source of the mixed corpus."""
    sections = {"select": SELECT_ALL, "shards": {"validation_fraction": 0.2}, "instruct": instruct}
    built = Built(modalities.corpus_at(root, **sections), Workspace(root))
    part = Part(f"{source}-000000", source, "inbox/x", 0, len(samples), source)
    built.workspace.write_catalog(Catalog(parts={part.name: part}))
    modalities.finish(built, part, samples)
    release(built)
    return built


def summary_of(built: Built) -> dict[str, Any]:
    path = built.workspace.release_dir(str(built.workspace.latest())) / "instructions.json"
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def test_texts_and_sounds_give_records_without_a_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = built_of(tmp_path / "texts", "txt", [modalities.text(number) for number in range(10)])
    sounds = built_of(tmp_path / "sounds", "wav", [modalities.sound(number) for number in range(12)])
    assert summary_of(texts)["counts"]["by_task"] == {"text_qa": 10}
    assert summary_of(sounds)["counts"]["by_task"] == {"transcribe": 12}
    assert "instruction files are empty" not in caplog.text


def test_an_empty_file_is_a_warning_that_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    built = built_of(tmp_path, "txt", [modalities.text(number) for number in range(10)], tasks=["caption"])
    assert summary_of(built)["counts"]["records"] == 0
    assert [record.levelname for record in caplog.records if "instruction files are empty" in record.message] == [
        "WARNING"
    ]
    why = write_instructions(built.corpus, built.workspace).text["empty files"]
    assert "instruct-chat-train.jsonl" in why
    assert (
        "no record of caption. Skipped most: caption: no picture (10). Remedy: name tasks under instruct.tasks" in why
    )
