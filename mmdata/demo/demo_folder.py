"""Make or open the demo: LAION-style metadata for a small web of pictures, with a known truth. Needs no network."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from mmdata.demo.drawings import demo_emoji, demo_photos
from mmdata.demo.picture_plan import KINDS, plan_rows
from mmdata.demo.picture_source import PICTURE_SOURCE, write_metadata, write_pictures
from mmdata.demo.recording_sources import write_recordings
from mmdata.demo.web_server import HOST
from mmdata.errors import UserError
from mmdata.media.espeak import Speaker
from mmdata.stage import Progress, silent
from mmdata.storage.atomic import publish_json

VERSION = 5  # raised when the same call would write other bytes
FIRST_PORT = 8711


@dataclass(frozen=True, slots=True)
class DemoCorpus:
    """The folder of a demo."""

    folder: Path  # holds all of it
    rows: int  # rows of the picture source; how-to videos, narrations and texts come in addition
    port: int  # that its URLs name; `DemoServer(site, port)` must listen there
    reused: bool = False  # the folder was there already

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


def make_demo(folder: Path | str, rows: int = 3000, port: int | None = None, progress: Progress = silent) -> DemoCorpus:
    """Write the demo: inbox/ (metadata), site/ (the files it points at), truth.parquet, concepts.txt, corpus.yaml.

    The same rows and port give the same bytes. A folder that holds this demo already is used as it is.

    Args:
        port: that the URLs name; by default the folder's own, or a free one.

    Raises:
        UserError: the folder holds other things, `rows` is too small, or the demo's packages are not installed.
    """
    demo = open_demo(folder)
    if demo is not None and demo.rows == rows and port in (None, demo.port):
        return demo
    folder = Path(folder).resolve()
    mark_path = folder / "demo.json"
    if not mark_path.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no demo. Remedy: give an empty or a new folder.")
    earlier_mark = _read_mark(folder)
    port = port or (earlier_mark["port"] if earlier_mark else free_port())
    planned = plan_rows(rows, demo_emoji(), demo_photos())
    mark = {"version": VERSION, "rows": rows, "port": port, "complete": False}
    publish_json(UPath(mark_path), mark)
    for name in ("site", "inbox"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    base_url = f"http://{HOST}:{port}"
    write_pictures(folder / "site", planned, progress)
    write_metadata(folder, planned, base_url)
    with Speaker() as speaker:
        write_recordings(folder, rows, demo_emoji(), base_url, speaker.say, progress)
    (folder / "concepts.txt").write_text("\n".join((*KINDS, "photo")) + "\n", encoding="utf-8")
    (folder / "corpus.yaml").write_text(_corpus_yaml(rows, port), encoding="utf-8")
    publish_json(UPath(mark_path), {**mark, "complete": True})
    return DemoCorpus(folder, rows, port)


def open_demo(folder: Path | str) -> DemoCorpus | None:
    """The demo in a folder; None: there is none, or it is incomplete, or of another version."""
    folder = Path(folder).resolve()
    mark = _read_mark(folder)
    if mark is None or not mark["complete"] or mark["version"] != VERSION:
        return None
    return DemoCorpus(folder, mark["rows"], mark["port"], reused=True)


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """The content of demo.json, which says what the folder holds."""
    try:
        mark = json.loads((folder / "demo.json").read_bytes())
        return {name: mark[name] for name in ("version", "rows", "port", "complete")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{folder / 'demo.json'} is damaged. Remedy: delete the folder.") from None


def free_port(first: int = FIRST_PORT) -> int:
    """The first free port from `first` on: mostly the same one, so that demos of several machines are alike."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UserError(f"no port from {first} to {first + 99} is free on {HOST}. Remedy: give another port.")


def _corpus_yaml(rows: int, port: int) -> str:
    source, part_rows = PICTURE_SOURCE, -(-rows // 4)
    return f"""\
# The demo corpus: {rows} pictures, some videos, recordings and texts from a small web on this machine.
# See docs/configuration.md for every key.
workspace: ./workspace
seed: 0
sources:
  - {{name: {source}, kind: laion, files: inbox/*.parquet, part_rows: {part_rows}, slice_rows: {-(-part_rows // 2)}}}
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
  scores: {{s_clip_loss: {{kind: s-clip-loss}}}}   # chosen with `mmdata compare`: docs/benchmarks.md
  filter: {{top: [{{score: s_clip_loss, fraction: 0.8}}], languages: [en], max_pwatermark: 0.8}}
  dedup: {{phash_bits: 4, semantic_eps: 0.03}}
  balance: {{alpha: 0.7, concepts: concepts.txt, concepts_by: embedding, concept_cap: {max(rows // 3, 20)}}}
  oversample: {{threshold: 0.08, max_repeats: 3}}
shards: {{shard_mb: 4, validation_fraction: 0.3}}   # many held-out pictures: retrieval is measured among them
instruct:
  tasks: [caption, match, reference_image, text_qa, step_caption, step_order, what_comes_next, transcribe,
          audio_visual_match]
  languages: [en, zh]
  formats: [record, llava, chat]
train: {{preset: demo, answers: 1000}}   # the packaged towers, frozen, and a caption for every held-out picture
"""
