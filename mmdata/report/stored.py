"""Reads stored samples for a page: captions, small pictures, frames and sound, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.documents import DOCUMENT, member_place, texts_between, with_pictures
from mmdata.errors import DataError
from mmdata.figures.sheet import thumbnail
from mmdata.score.generated_captions import captioner_mark
from mmdata.storage.tables import read_table
from mmdata.workspace.layout import Workspace

THUMBNAIL_PX, FRAME_PX = 168, 112
MAX_SOUND_BYTES = 400_000  # longer recordings would make the page too large
SOUND_TYPE = "audio/flac"


@dataclass(frozen=True, slots=True)
class Stored:
    """The caption and media of a sample, ready to be shown.

    Args:
        image: a data URI of a small JPEG; None where there is no picture or it cannot be read.
        frames: a data URI of each frame of a clip, and of each picture of a document that can be read.
        passages: of a document in its order: a picture, or None where there is none or it cannot be read, and the text
            that follows it. The first passage is the text before the first picture.
        sound: a data URI of a FLAC file.
        span: start and end of a clip in its file, or the length of a sound, as text.
        generated: the caption that a model made, with the model's name.
    """

    caption: str = ""
    url: str = ""
    image: str | None = None
    frames: tuple[str, ...] = ()
    passages: tuple[tuple[str | None, str], ...] = ()
    sound: str | None = None
    span: str = ""
    generated: str = ""


def read_stored(
    workspace: Workspace, part: str, name: str, uids: list[str], with_sound: Collection[str] = ()
) -> dict[str, Stored]:
    """Read some samples of a slice; samples that are gone are left out, as a release may outlive its slices.

    Args:
        with_sound: the uids of samples whose frames, passages and sound are read too.
    """
    try:
        texts = _rows(workspace, part, name, uids)
    except (DataError, FileNotFoundError):
        return {}
    samples = {uid: Stored(row["caption"] or "", row["url"] or "") for uid, row in texts.items()}
    with suppress(DataError, FileNotFoundError):
        samples |= dict(_with_media(workspace, part, name, uids, with_sound, texts))
    with suppress(DataError, FileNotFoundError):
        generated = _generated(workspace, part, name, uids)
        samples |= {uid: replace(samples[uid], generated=text) for uid, text in generated.items() if uid in samples}
    return samples


def small_picture(data: bytes | None, size_px: int = THUMBNAIL_PX) -> str | None:
    """The data URI of a small JPEG of a picture; None where it cannot be decoded."""
    picture = None if data is None else thumbnail(data, size_px)
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=78, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def sound_uri(data: bytes) -> str | None:
    """The data URI of a FLAC file; None where it is too large for a page, or is not FLAC."""
    if len(data) > MAX_SOUND_BYTES or not data.startswith(b"fLaC"):
        return None
    return f"data:{SOUND_TYPE};base64,{base64.b64encode(data).decode('ascii')}"


def _rows(workspace: Workspace, part: str, name: str, uids: list[str]) -> dict[str, dict[str, Any]]:
    rows = read_table(workspace.table(part, "rows", name), ["uid", "kind", "caption", "url", "start_s", "end_s"])
    return {row["uid"]: row for row in rows.filter(pc.is_in(rows["uid"], pa.array(uids))).to_pylist()}


def _generated(workspace: Workspace, part: str, name: str, uids: list[str]) -> dict[str, str]:
    """uid -> generated caption and who made it."""
    path = workspace.table(part, "features", name)
    mark = captioner_mark(read_table(path, ["uid"]).schema.metadata)
    if mark is None:
        return {}
    table = read_table(path, ["uid", "generated_caption"])
    rows = table.filter(pc.is_in(table["uid"], pa.array(uids))).to_pylist()
    return {
        row["uid"]: f"{row['generated_caption']} ({mark.name})" for row in rows if row["generated_caption"] is not None
    }


def _with_media(
    workspace: Workspace,
    part: str,
    name: str,
    uids: list[str],
    with_sound: Collection[str],
    texts: dict[str, dict[str, Any]],
) -> Iterator[tuple[str, Stored]]:
    columns = ["uid", "ext", "offset", "length", "further", "duration_s", "audio_s", "synthetic"]
    media = read_table(workspace.table(part, "media", name), columns)
    media = media.filter(pc.and_(pc.is_in(media["uid"], pa.array(uids)), pc.is_valid(media["length"])))
    if not media.num_rows:
        return
    with workspace.media_tar(part, name, media.schema.metadata).open("rb") as file:
        for row in media.to_pylist():
            uid, text = row["uid"], texts.get(row["uid"], {})
            members = {row["ext"]: row, **{member["ext"]: member for member in row["further"] or []}}
            pictures = [ext for ext in members if ext.rpartition(".")[2] in ("jpg", "png", "webp")]
            image = small_picture(_read(file, members[pictures[0]])) if pictures else None
            frames: tuple[str, ...] = ()
            passages: tuple[tuple[str | None, str], ...] = ()
            caption, url = text.get("caption") or "", text.get("url") or ""
            if text.get("kind") == DOCUMENT:
                caption = with_pictures(caption, [member_place(ext) for ext in pictures])
            sound = None
            if uid in with_sound:
                pictures_of_frames = [small_picture(_read(file, members[ext]), FRAME_PX) for ext in pictures]
                if text.get("kind") == DOCUMENT:
                    passages = tuple(zip([None, *pictures_of_frames], texts_between(caption), strict=True))
                frames = tuple(uri for uri in pictures_of_frames if uri is not None)
                sound = sound_uri(_read(file, members["flac"])) if "flac" in members else None
            yield uid, Stored(caption, url, image, frames, passages, sound, _span(text, row))


def _read(file: IO[bytes], member: dict[str, Any]) -> bytes:
    file.seek(member["offset"])
    return file.read(member["length"])


def _span(text: dict[str, Any], media: dict[str, Any]) -> str:
    seconds = media["duration_s"] if media["duration_s"] is not None else media["audio_s"]
    if seconds is None:
        return ""
    made = ", made by a machine" if media["synthetic"] else ""
    if text.get("start_s") is None:
        return f"{seconds:.1f} s{made}"
    return f"{text['start_s']:.1f} to {text['start_s'] + seconds:.1f} s{made}"
