"""The demo corpus: LAION-style metadata for a small web of pictures, with a known truth. Needs no network."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mmdata.demo.demo_recordings import write_recordings
from mmdata.demo.drawings import Photo, demo_emoji, demo_photos, draw
from mmdata.demo.planting import KINDS, Picture, Row, plan_rows
from mmdata.demo.web_server import HOST
from mmdata.errors import UserError
from mmdata.media.espeak import Speaker
from mmdata.samples import sample_uid
from mmdata.sources.problems import clean_caption, place_uid, problem_of
from mmdata.stage import Progress, silent
from mmdata.storage.atomic import publish_json
from mmdata.urls import canonical_url

VERSION = 3  # raised when the same call would write something else
SOURCE = "web"
FIRST_PORT = 8711
BOMB_SIDE_PX = 40_000

_FILE_SHARES = (0.5, 0.25, 0.25)


@dataclass(frozen=True, slots=True)
class DemoCorpus:
    """Where the demo lies, and what it is.

    Args:
        rows: rows of pictures; how-to videos, narrations and texts come on top of them.
        port: that its URLs name; `DemoServer(site, port)` must listen there.
        reused: it was there already.
    """

    folder: Path
    rows: int
    port: int
    reused: bool = False

    @property
    def config_path(self) -> Path:
        return self.folder / "corpus.yaml"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def truth_path(self) -> Path:
        return self.folder / "truth.parquet"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"


def make_demo(folder: Path | str, rows: int = 2000, port: int | None = None, progress: Progress = silent) -> DemoCorpus:
    """Write the demo corpus: inbox/ (metadata), site/ (what it points at), truth.parquet, concepts.txt, corpus.yaml.

    The same rows and port give the same bytes. A folder that holds this demo already is used as it is.

    Args:
        port: that the URLs name; by default the folder's own, or a free one.

    Raises:
        UserError: the folder holds something else, `rows` is too small, or the demo's packages are not installed.
    """
    demo = open_demo(folder)
    if demo is not None and demo.rows == rows and port in (None, demo.port):
        return demo
    folder = Path(folder).resolve()
    mark = folder / "demo.json"
    if not mark.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no demo. Remedy: give an empty or a new folder.")
    port = port or (_read_mark(folder) or {}).get("port") or free_port()
    planned = plan_rows(rows, demo_emoji(), demo_photos())
    publish_json(UPath(mark), {"version": VERSION, "rows": rows, "port": port, "complete": False})
    for name in ("site", "inbox"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    _write_site(folder / "site", planned, progress)
    _write_metadata(folder, planned, f"http://{HOST}:{port}")
    with Speaker() as speaker:
        write_recordings(folder, rows, demo_emoji(), f"http://{HOST}:{port}", speaker.say, progress)
    (folder / "concepts.txt").write_text("\n".join((*KINDS, "photo")) + "\n", encoding="utf-8")
    (folder / "corpus.yaml").write_text(_config(rows, port), encoding="utf-8")
    publish_json(UPath(mark), {"version": VERSION, "rows": rows, "port": port, "complete": True})
    return DemoCorpus(folder, rows, port)


def open_demo(folder: Path | str) -> DemoCorpus | None:
    """The demo that a folder holds whole, or None."""
    folder = Path(folder).resolve()
    about = _read_mark(folder)
    if about is None or not about["complete"] or about["version"] != VERSION:
        return None
    return DemoCorpus(folder, about["rows"], about["port"], reused=True)


def _read_mark(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / "demo.json").read_bytes())
        return {name: about[name] for name in ("version", "rows", "port", "complete")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{folder / 'demo.json'} is damaged. Remedy: delete the folder.") from None


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from `first` on that nothing listens on: mostly the same one, so that demos come out alike."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UserError(f"no free port between {first} and {first + 99} on {HOST}. Remedy: pass one.")


def render(picture: Picture) -> bytes:
    """The file of a picture. The same picture gives the same bytes."""
    from PIL import Image

    if isinstance(picture.subject, Photo):
        image = Image.fromarray(picture.subject.load())
        image.thumbnail((picture.size_px * 4 // 3, picture.size_px * 4 // 3), Image.Resampling.LANCZOS)
    else:
        png = draw(picture.subject, picture.size_px, picture.background, picture.zoom, picture.shift)
        if picture.format == "PNG":
            return png
        image = Image.open(io.BytesIO(png)).convert("RGB")
    out = io.BytesIO()
    image.save(out, picture.format, quality=picture.quality)
    return out.getvalue()


def bomb_png(side_px: int = BOMB_SIDE_PX) -> bytes:
    """A valid PNG of black pixels, 1 bit each: some hundred kilobytes that decode to gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = bytes((1 + side_px // 8) * 100)
    data = b"".join(packer.compress(rows) for _ in range(side_px // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _write_site(site: Path, planned: list[Row], progress: Progress) -> None:
    made: dict[str, bytes] = {}
    for number, row in enumerate(planned, 1):
        body = _body(row)
        if body is not None and body[0] not in made:
            made[body[0]] = body[1]
            target = site / body[0]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(body[1])
        if number % 50 == 0 or number == len(planned):
            progress("demo pictures", number, len(planned))


def _body(row: Row) -> tuple[str, bytes] | None:
    """The file that a row needs on the site."""
    if row.picture is not None:
        return row.picture.file, render(row.picture)
    if row.planted == "bomb":
        return row.place, bomb_png()
    if row.planted == "broken_image":
        noise = Random(row.place).randbytes(2_000)
        return row.place, noise if int(row.place[-5]) % 2 else b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + noise
    return None


def _write_metadata(folder: Path, planned: list[Row], web: str) -> None:
    random = Random(1)
    records = [_record(row, web, random) for row in planned]
    for number, row in enumerate(planned):
        if row.planted == "repeated_row" and row.of is not None:
            records[number] = records[row.of]
    truth: list[dict[str, object]] = []
    ends = [round(len(planned) * sum(_FILE_SHARES[: n + 1])) for n in range(len(_FILE_SHARES))]
    for number, (begin, end) in enumerate(pairwise([0, *ends])):
        name = f"pictures-{number:03d}.parquet"
        pq.write_table(pa.Table.from_pylist(records[begin:end], _LAION), folder / "inbox" / name, row_group_size=200)
        for at, n in enumerate(range(begin, end)):
            known = {"planted": planned[n].planted, "kind": planned[n].kind}
            truth.append({"uid": _uid(records[n], name, at), "file": name, "row": at} | known)
    pq.write_table(_LAION.empty_table(), folder / "inbox" / f"pictures-{len(ends):03d}.parquet")
    for one, row in zip(truth, planned, strict=True):
        one["of_uid"] = None if row.of is None else truth[row.of]["uid"]
    pq.write_table(pa.Table.from_pylist(truth, _TRUTH), folder / "truth.parquet")


_LAION = pa.schema(
    [
        ("URL", pa.string()),
        ("TEXT", pa.string()),
        ("WIDTH", pa.int64()),
        ("HEIGHT", pa.int64()),
        ("similarity", pa.float64()),
        ("hash", pa.int64()),
        ("punsafe", pa.float32()),
        ("pwatermark", pa.float32()),
        ("LANGUAGE", pa.string()),
    ]
)

_TRUTH = pa.schema(
    [
        ("uid", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("planted", pa.string()),
        ("kind", pa.string()),
        ("of_uid", pa.string()),  # of the row that it copies
    ]
)


def _record(row: Row, web: str, random: Random) -> dict[str, object]:
    place = row.place
    url = place if "://" in place or not place else f"{web}/{place}"
    size_px = row.picture.size_px if row.picture is not None else 256
    own = {
        "similarity": random.choice((float("nan"), round(random.uniform(0.28, 0.42), 4))),
        "hash": random.getrandbits(63),
        "punsafe": random.uniform(0.0, 0.2),
        "pwatermark": random.uniform(0.85, 0.99) if row.planted == "watermark" else random.uniform(0.0, 0.5),
    }
    size = {"WIDTH": size_px, "HEIGHT": size_px}
    return {"URL": url, "TEXT": row.caption, **size, **own, "LANGUAGE": row.language}


def _uid(record: dict[str, object], file: str, number: int) -> str:
    url, caption = str(record["URL"]), clean_caption(str(record["TEXT"]))
    if problem_of(url.strip(), caption) is not None:
        return place_uid(SOURCE, file, number)
    return sample_uid(canonical_url(url), caption)


def _config(rows: int, port: int) -> str:
    part_rows = -(-rows // 4)
    return f"""\
# The demo corpus: {rows} pictures, some videos, recordings and texts from a small web on this machine.
# See docs/configuration.md for every key.
workspace: ./workspace
seed: 0
sources:
  - {{name: {SOURCE}, kind: laion, files: inbox/*.parquet, part_rows: {part_rows}, slice_rows: {-(-part_rows // 2)}}}
  - name: howto                      # HowTo100M's files; the videos lie on a mirror
    kind: howto100m
    files: inbox/howto/*.csv
    captions: inbox/howto/raw_caption.json
    fetch_from: http://{HOST}:{port}/videos/{{video_id}}.mp4
  - name: sounds
    kind: audio
    files: inbox/sounds/*.parquet
    columns: {{url: url, caption: transcript, lang: language}}
  - {{name: texts, kind: text, files: inbox/texts/*.jsonl, columns: {{caption: text}}}}
download:
  image_size: 256
  timeout_s: 3
  deadline_s: 4
  max_bytes: 2000000
  retries: 1
  threads: 32
  per_host: 32                     # one host serves everything here
  allow_hosts: [127.0.0.1/32]      # the demo's own web, http://{HOST}:{port}; no other private address
clips: {{min_clip_s: 3, max_clip_s: 12, frames: 4}}
synthesis: {{speech: 0.5, kinds: [text]}}   # half of the texts are spoken by a machine, and say so
score: {{model: demo}}               # the small offline scorer; on a machine with a GPU: {{model: ViT-B-32, ...}}
select:
  filter: {{top_fraction: 0.75, languages: [en], max_pwatermark: 0.8}}
  dedup: {{phash_bits: 4, semantic_eps: 0.03}}
  balance: {{max_ratio: 24, tail_share: 0.02, concepts: concepts.txt, concept_cap: {max(rows // 10, 20)}}}
  oversample: {{threshold: 0.08, max_repeats: 3}}
shards: {{shard_mb: 4, validation_fraction: 0.15}}
instruct:
  tasks: [caption, match, reference_image, text_qa, step_caption, step_order, what_comes_next, transcribe,
          audio_visual_match]
  languages: [en, zh]
  formats: [record, llava, chat]
"""
