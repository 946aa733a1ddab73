"""A corpus of documents whose pictures are numbered, some of which are not on the server any more."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.published import Published, Web, picture

SOURCES = [
    {"name": "docs", "kind": "documents", "files": "inbox/*.jsonl", "slice_rows": 4},
    {"name": "web", "kind": "laion", "files": "inbox/*.parquet", "slice_rows": 4},
]
PICTURES = 40
LOST = 900  # pictures from this number on are not on the server
PAGE = "https://page.example/{}"


def url_of(web: Web, number: int) -> str:
    return web.url(number) if number < LOST else web.url(number, query="?gone=1")


def drawn(seed: int, count: int) -> list[list[int | str]]:
    """Documents as lists of picture numbers and texts, some pictures of which are lost."""
    draws = random.Random(seed)
    documents: list[list[int | str]] = []
    for at in range(count):
        segments: list[int | str] = [f"opening words of document {at}"]
        for place in range(draws.randint(1, 6)):
            is_lost = draws.random() < 0.3
            segments.append(LOST + draws.randrange(9) if is_lost else draws.randrange(PICTURES))
            if draws.random() < 0.7:
                segments.append(f"words {at} after picture {place}")
        if draws.random() < 0.3:
            segments = segments[1:]
        documents.append([*segments, f"end {at}"])
    return documents


def write(built: Published, documents: Sequence[Sequence[int | str]]) -> None:
    rows = [
        {
            "images": [url_of(built.web, one) if isinstance(one, int) else None for one in document],
            "texts": [one if isinstance(one, str) else None for one in document],
            "general_metadata": json.dumps({"url": PAGE.format(number)}),
        }
        for number, document in enumerate(documents)
    ]
    (built.folder / "inbox" / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def expected(document: Sequence[int | str]) -> tuple[list[int], list[str]]:
    """The pictures that are there, and the texts between them."""
    numbers: list[int] = []
    texts = [""]
    for segment in document:
        if isinstance(segment, str):
            texts[-1] = f"{texts[-1]} {segment}".strip()
        elif segment < LOST:
            numbers.append(segment)
            texts.append("")
    return numbers, texts


@cache
def _pixels(size: tuple[int, int]) -> np.ndarray:
    """The pictures of the server, float N,H,W,3. Args: size: width and height."""
    pictures = (Image.open(io.BytesIO(picture(number))).convert("RGB").resize(size) for number in range(PICTURES))
    return np.stack([np.asarray(one, float) for one in pictures])


def shown(pixels_HWC: np.ndarray) -> int:
    """The number of the picture of the server that is most like these pixels."""
    height, width, _ = pixels_HWC.shape
    return int(np.abs(_pixels((width, height)) - pixels_HWC).mean((1, 2, 3)).argmin())


def number_in(data: bytes) -> int:
    """The number of the picture in a JPEG."""
    return shown(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float))


def released(built: Published, release: str) -> dict[str, dict[str, bytes]]:
    """Key -> members by extension, of all samples of a release."""
    samples: dict[str, dict[str, bytes]] = {}
    folder = built.workspace.release_dir(release)
    for shard in json.loads((folder / "manifest.json").read_text())["shards"]:
        with tarfile.open(built.workspace.shards_dir / shard["name"]) as archive:
            for member in archive:
                key, _, ext = member.name.partition(".")
                file = archive.extractfile(member)
                samples.setdefault(key, {})[ext] = file.read() if file else b""
    return samples


def corpus_of_documents(folder: Path, web: Web, **sections: object) -> Published:
    """A corpus of documents and pairs; its documents are not yet written."""
    download = {"allow_hosts": ["127.0.0.0/8"], "retries": 0, "timeout_s": 5, "deadline_s": 9, "min_success_share": 0}
    return Published(folder, str(folder / "workspace"), web, sources=SOURCES, download=download, **sections)
