"""A small corpus on a loopback server, the states that it goes through, and what must come out in the end."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import random
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmdata.storage.atomic import TEMPORARY
from tests.crash.zygote import Life, Order, Zygote

TOLD = ("croissant.json", "report.html")  # they say when they were made
LIVES, LONGER = 200, 1.07
CONFIG = """workspace: ./workspace
sources:
  - {{name: web, kind: laion, files: inbox/*.parquet, part_rows: 24, slice_rows: 12}}
download: {{allow_hosts: [127.0.0.0/8], threads: 4, retries: 0, timeout_s: 60, image_size: 32}}
score: {{model: demo}}
select:
  filter: {{top_fraction: {top_fraction}}}
  dedup: {{phash_bits: 2, semantic_eps: 0.001, clusters: 3}}
  balance: {{max_ratio: null}}
  oversample: {{threshold: 0.2, max_repeats: 2}}
shards: {{shard_mb: 0.02, validation_fraction: 0.1}}
instruct: {{tasks: [caption, match]}}
"""


@contextmanager
def pictures(on_request: Callable[[str], None] = lambda path: None) -> Iterator[str]:
    """A server of small pictures, `/<number>.jpg`; every eleventh is not there, every thirteenth is cut short.

    Args:
        on_request: is called with the path before a request is answered.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            on_request(self.path)
            number = int(self.path.strip("/").partition(".")[0])
            body = picture(number)
            if number % 13 == 12:
                body = body[: len(body) // 2]
            self.send_response(404 if number % 11 == 10 else 200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def picture(number: int) -> bytes:
    numbers = random.Random(number)
    image = Image.new("RGB", (40, 30), tuple(numbers.randrange(256) for _ in range(3)))
    for _ in range(40):
        spot = (numbers.randrange(40), numbers.randrange(30))
        image.putpixel(spot, tuple(numbers.randrange(256) for _ in range(3)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def write_rows(folder: Path, name: str, url: str, first: int, count: int) -> None:
    """A metadata file of LAION's columns."""
    numbers = range(first, first + count)
    table = pa.table(
        {
            "URL": [f"{url}/{n}.jpg" for n in numbers],
            "TEXT": [f"picture number {n} of a {'boat' if n % 3 else 'house'} by the sea" for n in numbers],
        }
    )
    (folder / "inbox").mkdir(exist_ok=True)
    pq.write_table(table, folder / "inbox" / name)


@dataclass
class Scene:
    """A corpus before a piece of work, and what it comes to if nothing disturbs it.

    Args:
        folder: corpus.yaml, inbox and workspace as they are before the work; never touched.
        work: see `road.WORK`.
        expected: path -> digest of everything that must be there afterwards.
        before: the same of the releases that were there already: at no instant may one of them differ.
        steps: durable steps that the work takes.
        gone: bytes that no file may hold afterwards.
    """

    name: str
    folder: Path
    work: str
    expected: dict[str, str]
    before: dict[str, str]
    steps: int
    gone: tuple[bytes, ...] = ()


@dataclass
class Deaths:
    """What was survived: kind of step and what it was taken on -> times."""

    at: Counter[str] = field(default_factory=Counter)
    lives: int = 0

    @property
    def total(self) -> int:
        return self.at.total()


def make_scenes(folder: Path, url: str, zygote: Zygote) -> list[Scene]:
    """The first release; a refresh; a changed setting; a garbage collection; a takedown.

    All work is done at one place, `folder/corpus`, since a manifest says where its workspace lies.
    """
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "corpus.yaml").write_text(CONFIG.format(top_fraction=0.9))
    write_rows(corpus, "a.parquet", url, 0, 30)
    write_rows(corpus, "b.parquet", url, 100, 18)
    scenes = [_scene("first release", corpus, "build", zygote)]
    write_rows(corpus, "c.parquet", url, 200, 16)
    write_rows(corpus, "b.parquet", url, 104, 16)
    scenes.append(_scene("rows come, change and go", corpus, "build", zygote))
    (corpus / "corpus.yaml").write_text(CONFIG.format(top_fraction=0.7))
    (corpus / "inbox" / "c.parquet").unlink()
    scenes.append(_scene("a setting changes, a file is gone", corpus, "build", zygote))
    scenes.append(_scene("garbage collection", corpus, "collect", zygote))
    urls = [f"{url}/{number}.jpg" for number in (*range(5), 106)]
    (corpus / "forget.txt").write_text("\n".join(urls))
    scenes.append(_scene("takedown", corpus, "forget", zygote, pictures_of(corpus, urls)))
    return scenes


def pictures_of(corpus: Path, urls: list[str]) -> tuple[bytes, ...]:
    """The pictures of URLs as the shards hold them."""
    found = []
    for path in sorted((corpus / "workspace" / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            held = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
        notes = {name: json.loads(data) for name, data in held.items() if name.endswith(".json")}
        found += [held[name.removesuffix("json") + "jpg"] for name, note in notes.items() if note["url"] in urls]
    assert len(found) > len(urls) / 2
    return tuple(found)


def _scene(name: str, corpus: Path, work: str, zygote: Zygote, gone: tuple[bytes, ...] = ()) -> Scene:
    """Keep the corpus as it is, then do the work undisturbed."""
    kept = corpus.parent / f"before {name}"
    shutil.copytree(corpus, kept)
    life = zygote.live(order(corpus, work))
    assert life.end == "done", life
    assert life.broken_promises == ()
    assert not places_of(corpus, gone)
    return Scene(name, kept, work, outcome(corpus), releases_of(kept), life.steps, gone)


def order(corpus: Path, work: str, **death: object) -> Order:
    config, watched, backups = corpus / "corpus.yaml", corpus / "workspace", corpus.parent / "backups"
    return Order(str(config), work, str(watched), str(backups), **death)  # type: ignore[arg-type]


def survive(scene: Scene, zygote: Zygote, seed: int, *, power: bool, timed: bool, deaths: Deaths) -> None:
    """Die at seeded steps (or times), again and again, until the work is done; then compare.

    Raises:
        AssertionError: a release of before was damaged at some instant, or the outcome is another one.
    """
    numbers = random.Random(f"{scene.name} {seed} {power} {timed}")
    folder = scene.folder.parent / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.parent / "backups", ignore_errors=True)
    shutil.copytree(scene.folder, folder)
    reach = max(6.0, scene.steps / 25)  # near enough to die often
    seconds = 0.1
    for life_number in range(LIVES):
        if timed:
            given = order(folder, scene.work, after_s=numbers.uniform(0.01, seconds))
        else:
            power_seed = numbers.randrange(1 << 30) if power else None
            given = order(folder, scene.work, at=numbers.randint(1, int(reach)), power_seed=power_seed)
        life = zygote.live(given)
        deaths.lives += 1
        where = f"{scene.name}, seed {seed}, power={power}, timed={timed}, life {life_number}: {life}"
        damaged = [path for path, digest in scene.before.items() if digest_of(folder / path) != digest]
        if scene.work == "build":
            assert not damaged, f"{where}: {damaged[:3]}"
        _check_releases(folder, where)
        if life.end == "done":
            break
        assert life.end == "killed", where
        deaths.at[kind_of(life.step)] += 1
        reach, seconds = reach * LONGER, seconds * LONGER  # what must be done in one breath gets done in the end
    else:
        raise AssertionError(f"{scene.name}, seed {seed}: not done after {LIVES} lives")
    found = outcome(folder)
    wrong = sorted(path for path in found.keys() | scene.expected.keys() if found.get(path) != scene.expected.get(path))
    assert not wrong, f"{scene.name}, seed {seed}, power={power}, timed={timed}: {wrong[:5]} differ"
    left = places_of(folder, scene.gone)
    assert not left, f"{scene.name}, seed {seed}, power={power}, timed={timed}: forgotten, and still in {left[:5]}"


def kind_of(step: str) -> str:
    """`rename shards/*.tar` for a step on one of them; a draft is a file that has not got its name yet."""
    word, _, path = step.partition(" ")
    inside = Path(path.partition("/workspace/")[2])
    if not inside.name:
        return step
    drafted, name = inside.name.startswith(TEMPORARY), inside.name
    if drafted:
        name = name[len(TEMPORARY) :].partition("-")[2]
    top, *further = inside.parts[:-1] or ("",)
    stage = f"{top}/{further[1]}" if top == "parts" and len(further) > 1 else top
    if stage and Path(name).suffix:
        name = f"*{Path(name).suffix}"
    return f"{word} {'draft of ' if drafted else ''}{stage}{'/' if stage else ''}{name}"


def _check_releases(folder: Path, where: str) -> None:
    """What has a manifest is whole, and `latest` names such a one."""
    workspace = folder / "workspace"
    damaged = [path for path, digest in releases_of(folder).items() if digest == "gone"]
    assert not damaged, f"{where}: {damaged[:3]}"
    latest = workspace / "releases" / "latest"
    if not latest.exists():
        return
    release = workspace / "releases" / latest.read_text().strip()
    manifest = json.loads((release / "manifest.json").read_text())
    told = {release / name: facts["sha256"] for name, facts in manifest["files"].items()}
    told |= {workspace / "shards" / shard["name"]: shard["sha256"] for shard in manifest["shards"]}
    wrong = [str(path) for path, digest in told.items() if digest_of(path) != digest]
    assert not wrong, f"{where}: {wrong[:3]}"


def releases_of(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file that a published release is made of."""
    found: dict[str, str] = {}
    workspace = folder / "workspace"
    for manifest_path in sorted(workspace.glob("releases/*/manifest.json")):
        manifest = json.loads(manifest_path.read_text())
        paths = [manifest_path, *(manifest_path.parent / name for name in manifest["files"])]
        paths += [workspace / "shards" / shard["name"] for shard in manifest["shards"]]
        found |= {str(path.relative_to(folder)): digest_of(path) for path in paths}
    return found


def outcome(folder: Path) -> dict[str, str]:
    """All that the work must come to, times aside: releases, shards, notes, the parts' stamps, what the log says."""
    workspace = folder / "workspace"
    found: dict[str, str] = {}
    for path in sorted(workspace.rglob("*")):
        name = str(path.relative_to(workspace))
        if not path.is_file() or path.name.startswith(TEMPORARY) or name.startswith("leases/"):
            continue
        if name.startswith("parts/") and path.suffix == ".tar":
            continue  # an earlier fetch's stays until the next: which is the next depends on the deaths
        if name.startswith("releases/") and path.name in TOLD:
            found[name] = "told"
        elif name == "takedown/log.jsonl":
            found[name] = json.dumps([json.loads(line)["what"] for line in path.read_text().splitlines()])
        elif path.name == "manifest.json":
            found[name] = json.loads(path.read_text())["digest"]
        elif name.startswith("releases/") or name.startswith("shards/"):
            found[name] = digest_of(path)
        elif name.startswith("parts/") and path.suffix == ".json":
            stamp = json.loads(path.read_text())
            found[name] = json.dumps({key: stamp.get(key) for key in ("fingerprint", "digest", "rows", "accepted")})
        elif name.startswith("parts/"):
            found[name] = "there"
    return found


def places_of(folder: Path, needles: tuple[bytes, ...]) -> list[Path]:
    """The files that hold any of them."""
    paths = [path for path in folder.rglob("*") if needles and path.is_file()]
    return [path for path in paths if any(needle in path.read_bytes() for needle in needles)]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "gone"


__all__ = ["Deaths", "Life", "Scene", "make_scenes", "pictures", "survive"]
