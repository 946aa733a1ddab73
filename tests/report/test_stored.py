"""The report shows a clip's frames and plays its sound, and hides nothing that a machine made."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import polars as pl
import pytest

from mmdata.report.stage import report_release
from mmdata.report.stored import MAX_SOUND_BYTES, read_stored, sound_uri
from mmdata.storage.tables import read_table
from tests.support import modalities, workspaces


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> workspaces.Built:
    found = modalities.build(tmp_path_factory.mktemp("workspace"))
    workspaces.release(found)
    return found


def uids_of(built: workspaces.Built, part: str) -> tuple[str, list[str]]:
    stamp = built.workspace.part_stamp(part, "media")
    assert stamp is not None
    name = stamp.slices[0]
    return name, read_table(built.workspace.table(part, "media", name), ["uid"])["uid"].to_pylist()


def test_frames_and_sound_are_given_where_they_are_asked_for(built: workspaces.Built) -> None:
    name, uids = uids_of(built, "how-000001")
    media = pl.DataFrame(read_table(built.workspace.table("how-000001", "media", name)))
    heard = media.filter(pl.col("audio_s").is_not_null())["uid"].to_list()
    found = read_stored(built.workspace, "how-000001", name, uids, with_sound=uids[:3])
    for uid in uids[:3]:
        assert len(found[uid].frames) == modalities.FRAMES
        assert (found[uid].sound is not None) == (uid in heard)
        assert re.fullmatch(r"\d+\.\d to \d+\.\d s", found[uid].span)
    assert all(found[uid].frames == () and found[uid].sound is None and found[uid].image for uid in uids[3:])


def test_a_recording_has_no_picture_and_its_sound_is_what_is_stored(built: workspaces.Built) -> None:
    name, uids = uids_of(built, "wav-000000")
    found = read_stored(built.workspace, "wav-000000", name, uids, with_sound=uids)
    assert all(one.image is None and one.frames == () for one in found.values())
    sound = found[uids[0]].sound
    assert sound is not None
    assert base64.b64decode(sound.partition(",")[2]).startswith(b"fLaC")


def test_long_sound_and_what_is_no_flac_is_not_put_into_a_page() -> None:
    assert sound_uri(b"fLaC" + bytes(10)) is not None
    assert sound_uri(b"fLaC" + bytes(MAX_SOUND_BYTES)) is None
    assert sound_uri(b"<script>") is None


def test_the_page_has_a_player_for_every_signature_with_sound(built: workspaces.Built) -> None:
    release = built.workspace.latest()
    assert release is not None
    folder = built.workspace.release_dir(release)
    report_release(folder)
    page = (folder / "report.html").read_text()
    section = page[page.index('id="clips"') :]
    assert "media-src data:" in page
    for signature in ("audio+text", "audio+text+video", "text+video"):
        assert f"{signature} <b>" in section
    assert section.count("<audio controls") >= 6
    assert section.count('class="strip"') >= 6


def test_slices_that_are_gone_leave_the_page_without_their_samples(built: workspaces.Built, tmp_path: Path) -> None:
    assert read_stored(built.workspace, "how-000001", "9999", ["0" * 32]) == {}
