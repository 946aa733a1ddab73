"""Records about clips and sound, from a release with real shards."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.instruct import clips
from mmdata.instruct.media_paths import read_member
from mmdata.instruct.stage import write_instructions
from mmdata.instruct.tasks import ANSWERED_BY_TEMPLATE
from mmdata.publish.release import publish_release
from mmdata.publish.verify import verify_release
from mmdata.releases.draft import read_draft
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from tests.support import modalities
from tests.support.workspaces import Built

TASKS = ["caption", "detailed_caption", "match", "text_qa", "text_to_image"]
CLIP_TASKS = ["step_caption", "step_order", "what_comes_next", "transcribe", "audio_visual_match"]
YES = {"Yes": True, "是": True, "No": False, "否": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of every signature with all tasks of clips and sound, that nobody changes."""
    return made(tmp_path_factory.mktemp("clips"), tasks=[*TASKS, *CLIP_TASKS])


def made(root: Path, **instruct: Any) -> Built:
    built = modalities.build(root, instruct=instruct)
    select_samples(built.corpus, built.workspace)
    write_shards(built.corpus, built.workspace)
    write_instructions(built.corpus, built.workspace)
    return built


def lines(built: Built, form: str = "record", split: str | None = None) -> list[dict[str, Any]]:
    folder = built.workspace.release_dir(read_draft(built.workspace).release_id)
    paths = [folder / f"instruct-{form}-{one}.jsonl" for one in ("train", "validation") if split in (None, one)]
    return [json.loads(line) for path in paths for line in path.read_text().split("\n")[:-1]]


def of_task(built: Built, task: str) -> dict[str, dict[str, Any]]:
    return {record["id"][:32]: record for record in lines(built) if record["task"] == task}


def sources() -> dict[str, dict[str, Any]]:
    clips_ = [modalities.clip(v, n) for v in range(modalities.VIDEOS) for n in range(modalities.CLIPS)]
    return {
        one["uid"]: one for one in [*clips_, *map(modalities.sound, range(12)), *map(modalities.picture, range(30))]
    }


def uid_in(path: str) -> str:
    return path.removeprefix("tar://")[:32]


def paths_in(record: dict[str, Any]) -> list[str]:
    single = [record[name] for name in ("input_image", "reference_image", "input_audio", "output_image")]
    return [path for path in [*single, *(record["input_video"] or [])] if path is not None]


def test_every_path_leads_to_the_member_that_was_stored(built: Built) -> None:
    known, seen = sources(), Counter[str]()
    for record in lines(built):
        for path in paths_in(record):
            ext = path.partition("::")[0].partition(".")[2]
            assert read_member(path, built.workspace.root) == dict(known[uid_in(path)]["members"])[ext]
            seen[ext] += 1
    assert seen["flac"] > 40
    assert seen["003.jpg"] > 60


def test_a_clip_shows_its_frames_in_order_and_says_what_is_done(built: Built) -> None:
    found, known = of_task(built, "step_caption"), sources()
    assert len(found) == modalities.VIDEOS * modalities.CLIPS
    for uid, record in found.items():
        assert record["output"] == known[uid]["caption"]
        names = [path.partition("::")[0] for path in record["input_video"]]
        assert names == [f"tar://{uid}.{at:03d}.jpg" for at in range(modalities.FRAMES)]
        assert record["input_image"] is None and record["input_audio"] is None


def test_captions_of_clips_are_asked_once(built: Built, tmp_path: Path) -> None:
    assert not any(record["input_video"] for record in of_task(built, "caption").values())
    alone = of_task(made(tmp_path, tasks=["caption"]), "caption")
    shown = {uid for uid, record in alone.items() if record["input_video"]}
    assert len(shown) == modalities.VIDEOS * modalities.CLIPS
    assert all(("image" in one["instruction"]) <= (uid not in shown) for uid, one in alone.items())


def test_the_order_that_is_answered_is_that_of_time(built: Built) -> None:
    found, known = of_task(built, "step_order"), sources()
    assert len(found) == modalities.VIDEOS
    for uid, record in found.items():
        frames = record["input_video"]
        assert len(frames) == modalities.CLIPS
        assert str(len(frames)) in record["instruction"]
        numbers = [int(number) for number in record["output"].split(", ")]
        starts = [known[uid_in(frames[number - 1])]["start_s"] for number in numbers]
        assert starts == sorted(starts) and numbers != sorted(numbers)
        assert {known[uid_in(path)]["url"] for path in frames} == {known[uid]["url"]}
        assert all(".002.jpg::" in path for path in frames)
    assert len({record["output"] for record in found.values()}) > 3


def test_what_comes_next_shows_the_clips_before_and_nothing_of_the_next(built: Built) -> None:
    found, known = of_task(built, "what_comes_next"), sources()
    assert len(found) == modalities.VIDEOS * (modalities.CLIPS - 1)
    for uid, record in found.items():
        own = known[uid]
        shown = [known[uid_in(path)] for path in record["input_video"]]
        assert record["output"] == own["caption"]
        assert {one["url"] for one in shown} == {own["url"]}
        starts = [one["start_s"] for one in shown]
        assert starts == sorted(starts) and starts[-1] == own["start_s"] - 10
        assert len(shown) == 2 * min(clips.CLIPS_BEFORE, round(own["start_s"] / 10))


def test_only_words_that_were_said_are_transcribed(built: Built) -> None:
    found, known = of_task(built, "transcribe"), sources()
    kinds = Counter(known[uid]["kind"] for uid in found)
    assert kinds == {"audio": 12, "video": modalities.VIDEOS // 2 * modalities.CLIPS, "image": 3}
    for uid, record in found.items():
        assert record["output"] == (known[uid].get("caption") or known[uid]["transcript"])
        assert uid_in(record["input_audio"]) == uid
        assert record["input_video"] is None and record["input_image"] is None


def changed(real: Callable[..., dict[str, Any]], **own: Any) -> Callable[..., dict[str, Any]]:
    return lambda *number: real(*number) | own


def test_a_silent_recording_and_a_caption_that_nobody_spoke_are_not_transcribed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modalities, "sound", changed(modalities.sound, speech_ratio=0.02))
    monkeypatch.setattr(modalities, "clip", changed(modalities.clip, extra='{"video_id": "x"}', silence_ratio=0.99))
    quiet = made(tmp_path, tasks=["transcribe", "audio_visual_match"])
    facts = json.loads(
        (quiet.workspace.release_dir(read_draft(quiet.workspace).release_id) / "instructions.json").read_text()
    )
    assert facts["skipped"]["transcribe: no speech heard"] == 12
    assert facts["skipped"]["transcribe: words that nobody said"] == 30
    assert facts["skipped"]["audio_visual_match: silent"] == 30
    assert facts["counts"]["by_task"] == {"transcribe": 3}


def test_a_sound_belongs_to_its_own_frames_and_another_is_of_another_video_of_the_split(built: Built) -> None:
    found, known = of_task(built, "audio_visual_match"), sources()
    split = {record["id"][:32]: one for one in ("train", "validation") for record in lines(built, split=one)}
    said = []
    for uid, record in found.items():
        other = known[uid_in(record["input_audio"])]
        said.append(YES[record["output"]])
        assert (other["uid"] == uid) == said[-1]
        assert (other["url"] == known[uid]["url"]) == said[-1]
        assert split[other["uid"]] == split[uid]
        assert [uid_in(path) for path in record["input_video"]] == [uid] * modalities.FRAMES
    assert len(said) == modalities.VIDEOS // 2 * modalities.CLIPS
    assert 0.25 < sum(said) / len(said) < 0.75


def test_records_reach_over_no_split(built: Built) -> None:
    folder = built.workspace.release_dir(read_draft(built.workspace).release_id)
    index = pl.read_parquet((folder / "index.parquet").path)
    side = dict(index.select("uid", "split").iter_rows())
    assert set(side.values()) == {"train", "validation"}
    for split in ("train", "validation"):
        records = lines(built, split=split)
        assert {side[uid_in(path)] for record in records for path in paths_in(record)} == {split}


def test_the_three_forms_hold_the_same_media(built: Built) -> None:
    by_form = {form: {one["id"]: one for one in lines(built, form)} for form in ("record", "llava", "chat")}
    assert by_form["record"].keys() == by_form["llava"].keys() == by_form["chat"].keys()
    kinds: dict[str, int] = defaultdict(int)
    for identity, record in by_form["record"].items():
        shown = [*(p for p in (record["input_image"], record["reference_image"]) if p), *(record["input_video"] or [])]
        llava, chat = by_form["llava"][identity], by_form["chat"][identity]
        if record["output"] is not None:
            images = llava.get("image", [])
            assert ([images] if isinstance(images, str) else images) == shown
        assert llava.get("audio") == record["input_audio"]
        assert llava["conversations"][0]["value"].count("<audio>") == (record["input_audio"] is not None)
        parts = chat["messages"][0]["content"]
        assert [part["image"] for part in parts if part["type"] == "image"] == shown
        assert [part["audio"] for part in parts if part["type"] == "audio"] == [
            path for path in [record["input_audio"]] if path
        ]
        kinds[record["task"]] += 1
    assert set(CLIP_TASKS) <= set(kinds)


def test_questions_are_asked_in_the_languages_of_their_answers(built: Built) -> None:
    said = {task: Counter(r["lang"] for r in of_task(built, task).values()) for task in CLIP_TASKS}
    for task, languages in said.items():  # the captions are English, and so are questions that they answer
        assert set(languages) == ({"en", "zh"} if task in ANSWERED_BY_TEMPLATE else {"en"}), task


def test_base64_holds_frames_and_sound(tmp_path: Path) -> None:
    embedded = made(tmp_path / "a", tasks=["audio_visual_match"], images="base64", formats=["record"])
    paths = {one["id"]: one for one in lines(made(tmp_path / "b", tasks=["audio_visual_match"]))}
    for record in lines(embedded):
        told = paths[record["id"]]
        for uri, path in zip([*record["input_video"], record["input_audio"]], paths_of(told), strict=True):
            kind, _, data = uri.partition(",")
            assert kind == ("data:audio/flac;base64" if ".flac" in path else "data:image/jpeg;base64")
            assert base64.b64decode(data) == read_member(path, tmp_path / "b") == read_member(uri, tmp_path)


def paths_of(record: dict[str, Any]) -> list[str]:
    return [*record["input_video"], record["input_audio"]]


def test_a_release_of_clips_verifies_with_its_records(tmp_path: Path) -> None:
    whole = made(tmp_path, tasks=CLIP_TASKS)
    publish_release(whole.corpus, whole.workspace)
    verify_release(whole.workspace.root)
