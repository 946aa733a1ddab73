"""Videos and sound of a slice: each file fetched once and cut once, whatever the number of its clips."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from mmdata.config import Clips, Download, Privacy
from mmdata.media.clip import Look
from mmdata.media.container import Limits
from mmdata.media.cutting import Span
from mmdata.media.decoder import CutClip, DecoderPool
from mmdata.optout.hashes import NOTHING, OptOut
from mmdata.optout.state import REASON
from mmdata.web.failures import HOST_FAULTS, REFUSALS, FetchError
from mmdata.web.hosts import HOST_DOWN_AFTER, HostHealth, fetch_all
from mmdata.web.large_files import FetchedFile, fetch_file
from mmdata.web.retries import next_retry_at
from mmdata.web.video_sites import fetch_from_site, is_site

Row = Mapping[str, Any]
Place = tuple[IO[bytes], int, int]
"""A file, and the offset and length of a member's bytes in it."""


@dataclass(frozen=True, slots=True)
class Recordings:
    """What decides how videos and sound are fetched and what is stored of them.

    Args:
        fetch_from: template of the place to fetch from instead of a row's URL; None: the URL.
        opt_out: files that are in it are not kept.
    """

    download: Download
    clips: Clips
    privacy: Privacy
    fetch_from: str | None = None
    opt_out: OptOut = NOTHING

    def look(self) -> Look:
        return Look(
            frames=self.clips.frames,
            choose=self.clips.choose,
            sound=self.clips.sound,
            keep_video=self.clips.keep_video,
            image_size=self.download.image_size,
            quality=self.download.encode_quality,
            blur_faces=self.privacy.blur_faces,
            min_face_score=self.privacy.min_face_score,
            drop_voices=self.privacy.drop_voices,
            max_speech=self.privacy.max_speech,
        )

    def place_of(self, row: Row) -> str | None:
        """Where a row's file is fetched from; None: there is no telling without a proper `video_id`."""
        if self.fetch_from is None:
            return str(row["url"])
        video_id = json.loads(row["extra"] or "{}").get("video_id")
        if not isinstance(video_id, str | int) or not str(video_id).strip("."):  # dots alone are another folder
            return None
        return self.fetch_from.replace("{video_id}", quote(str(video_id), safe=""))


@dataclass(frozen=True, slots=True)
class Stored:
    """A row's media record, but for where its members lie in the slice's tar.

    Args:
        members: extension and place of each, in order.
        owner: uid that they are named by; None: the row's own.
    """

    record: dict[str, Any]
    members: Sequence[tuple[str, Place]] = ()
    owner: str | None = None


class Spool:
    """A file that many threads add to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._lock = threading.Lock()

    def add(self, data: bytes) -> Place:
        with self._lock:
            place = self.file.seek(0, io.SEEK_END)
            self.file.write(data)
        return self.file, place, len(data)


def fetch_recordings(
    rows: Sequence[Row],
    known: Mapping[str, Mapping[str, Any]],
    settings: Recordings,
    spool: Spool,
    advance: Callable[[int], None],
) -> dict[str, Stored]:
    """Fetch and cut what some rows point at.

    Args:
        rows: of kinds `video` and `audio`, without a problem; each is to be fetched now.
        known: uid -> the record of the last try.
        spool: takes the clips' bytes.
        advance: told of rows that are done.

    Returns:
        uid -> what becomes of the row.

    Raises:
        UserError: a package that decoding needs is not installed.
    """
    by_place: dict[str, list[Row]] = {}
    found: dict[str, Stored] = {}
    for row in rows:
        place = settings.place_of(row)
        if place is None:
            found[row["uid"]] = _nowhere(row)
            advance(1)
        else:
            by_place.setdefault(place, []).append(row)
    clips, download = settings.clips, settings.download
    health = HostHealth(HOST_DOWN_AFTER)
    with DecoderPool(clips.decoders, clips.decode_timeout_s) as pool:
        work = partial(_one_file, by_place=by_place, settings=settings, spool=spool, pool=pool, health=health)
        for place, (fetched, cuts) in fetch_all(list(by_place), work, clips.threads, download.per_host):
            for row, cut in zip(by_place[place], cuts, strict=True):
                attempts = int(known.get(row["uid"], {}).get("attempts") or 0) + fetched.was_tried
                found[row["uid"]] = _stored(row, place, fetched, cut, attempts, download)
            advance(len(by_place[place]))
    return found


@dataclass(frozen=True, slots=True)
class _Kept:
    """A clip whose bytes lie in the spool."""

    clip: CutClip
    members: tuple[tuple[str, Place], ...] = ()
    facts: Mapping[str, Any] | None = None


def _one_file(
    place: str,
    by_place: Mapping[str, list[Row]],
    settings: Recordings,
    spool: Spool,
    pool: DecoderPool,
    health: HostHealth,
) -> tuple[FetchedFile, list[_Kept]]:
    rows = by_place[place]
    nothing = [_Kept(CutClip())] * len(rows)
    with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
        target = Path(folder) / "file"
        fetched = _fetched(place, target, settings, health)
        if fetched.failure is not None:
            return fetched, nothing
        spans = [Span(row["start_s"], row["end_s"]) for row in rows]
        limits = Limits(settings.clips.max_duration_s, settings.download.max_pixels)
        kept = []
        with pool.decode(target, rows[0]["kind"], spans, settings.look(), limits) as decoded:
            data = decoded.data.open("rb") if decoded.data.exists() else io.BytesIO()
            with data:
                for clip in decoded.clips:
                    members = tuple((m.ext, spool.add(_read(data, m.offset, m.length))) for m in clip.members)
                    kept.append(_Kept(clip, members, decoded.facts))
        return fetched, kept


def _fetched(place: str, target: Path, settings: Recordings, health: HostHealth) -> FetchedFile:
    if health.is_down(place):
        return FetchedFile(FetchError("host_down", "its host failed too often in a row; left alone", may_pass=True))
    fetch = fetch_from_site if is_site(place) else fetch_file
    fetched = fetch(place, target, settings.download, settings.clips)
    health.note(place, is_host_fault=fetched.failure is not None and fetched.failure.error in HOST_FAULTS)
    if settings.opt_out.covers_file(fetched.sha256):
        return replace(fetched, failure=FetchError(REASON, "the file is among those that are left out"))
    return fetched


def _nowhere(row: Row) -> Stored:
    detail = "source.fetch_from asks for a video_id, and the row has none that could stand in a URL"
    return Stored({"uid": row["uid"], "status": "refused", "error": "bad_row", "detail": detail, "attempts": 0})


def _stored(row: Row, place: str, fetched: FetchedFile, kept: _Kept, attempts: int, download: Download) -> Stored:
    now = datetime.now(UTC)
    failure, clip = fetched.failure, kept.clip
    record = {
        "uid": row["uid"],
        "attempts": attempts,
        "sha256": clip_sha256(fetched.sha256, row["start_s"], row["end_s"]),
        "bytes": fetched.size_bytes,
        "mime": fetched.mime,
        "fetched_at": now.replace(microsecond=now.microsecond // 1000 * 1000),
        "etag": fetched.etag,
    }
    if failure is not None:
        retry = next_retry_at(place, failure, attempts, download, now)
        told = {"status": failure.status, "error": failure.error, "detail": failure.detail, "next_retry_at": retry}
        if failure.error == REASON:
            told["sha256"] = fetched.sha256
        return Stored({**record, **told})
    expected = row["expected_sha256"]
    if expected is not None and expected.lower() != fetched.sha256:
        told = {"detail": f"expected sha256 {expected.lower()}, got {fetched.sha256}", "sha256": fetched.sha256}
        return Stored({**record, **told, "status": "failed_to_download", "error": "hash_mismatch"})
    facts = kept.facts or {}
    about = {"original_width": facts.get("width"), "original_height": facts.get("height"), "fps": facts.get("fps")}
    if clip.problem is not None:
        status = "refused" if clip.problem in REFUSALS else "failed_to_resize"
        return Stored({**record, **about, "status": status, "error": clip.problem, "detail": clip.detail})
    own = {
        "status": "success",
        "width": clip.width,
        "height": clip.height,
        "duration_s": clip.duration_s,
        "frame_times_s": list(clip.times_s) or None,
        "audio_s": clip.audio_s,
        "faces": clip.faces,
        "detail": "speech was found, and its sound was not kept" if clip.voice else None,
    }
    return Stored({**record, **about, **own}, kept.members)


def is_mended(row: Row, record: Mapping[str, Any] | None) -> bool:
    """Whether a row was refused for its file's hash, and the source now expects the very file that came."""
    if record is None or record["error"] != "hash_mismatch":
        return False
    return row["expected_sha256"] is None or row["expected_sha256"].lower() == record["sha256"]


def clip_sha256(file_sha256: str | None, start_s: float | None, end_s: float | None) -> str | None:
    """What identifies the bytes that a clip was cut from: the file's SHA-256, of a part of it with the part's times."""
    if file_sha256 is None or start_s is None or end_s is None:
        return file_sha256
    return hashlib.sha256(f"{file_sha256} {start_s:.3f} {end_s:.3f}".encode()).hexdigest()


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
