"""docs/sources.md: each corpus.yaml on the page reads a small file of the form in which that data set is published."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mmdata.config.load import parse_corpus
from mmdata.sources.catalog import update_catalog
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.workspace.layout import Workspace

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
URL, CAPTION = "https://e.org/a.jpg", 'A "red" car, 5" long'

Expected = dict[str, Any]


def parquet(
    name: str, expected: Expected | None = None, **columns: Any
) -> tuple[str, Callable[[Path], None], Expected]:
    table = pa.table({column: [value] for column, value in columns.items()})
    return name, lambda path: pq.write_table(table, path), expected or {}


def text(name: str, content: str, **expected: Any) -> tuple[str, Callable[[Path], None], Expected]:
    data = content.encode()
    return name, lambda path: _write(path, gzip.compress(data) if name.endswith(".gz") else data), expected


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def csv_of(**columns: Any) -> str:
    quoted = (f'"{str(value).replace(chr(34), chr(34) * 2)}"' for value in columns.values())
    return f"{','.join(columns)}\n{','.join(quoted)}\n"


def tsv_of(**columns: Any) -> str:
    return "\t".join(columns) + "\n" + "\t".join(map(str, columns.values())) + "\n"


REDCAPS = {"info": {"version": 1}, "annotations": [{"image_id": "b1", "author": "d", "url": URL, "caption": CAPTION}]}
REDCAPS["annotations"][0] |= {"raw_caption": "A", "subreddit": "cars", "score": 9, "crosspost_parents": None}  # type: ignore[index]
SBU = {"image_urls": [URL], "user_ids": ["u@N"], "captions": [CAPTION]}
YFCC = ["0", "1", "h", "n@N", "user", "2010", "1", "Canon", "Car", "A+%22red%22+car%2C+5%22+long", "", "", "", "", "16"]
YFCC += ["https://e.org/page", URL, "Attribution", "https://c.org", "1", "2", "s", "o", "jpg", "0"]
CLIP = {"start_s": 30.0, "end_s": 40.0}
WIT = {"language": "en", "page_url": "https://p", "image_url": URL, "page_title": "T", "section_title": ""}
WIT |= {"caption_reference_description": CAPTION, "mime_type": "image/jpeg"}
VOICE = {"client_id": "c", "path": "common_voice_en_1.mp3", "sentence": CAPTION, "up_votes": 2, "down_votes": 0}
VOICE |= {"age": "", "gender": "", "accents": "", "locale": "en"}
FINEWEB = {
    "text": CAPTION,
    "id": "<urn:uuid:1>",
    "dump": "CC-MAIN-2024-10",
    "url": "https://p",
    "language": "en",
    "language_score": 0.9,
}


def blocks(page: str) -> dict[str, str]:
    """Heading -> the whole corpus.yaml below it."""
    sections = (section.partition("\n") for section in re.split(r"^#+ ", page, flags=re.MULTILINE))
    parts = {heading: body.partition("```yaml\n")[2].partition("```")[0] for heading, _, body in sections}
    return {heading: block for heading, block in parts.items() if block.startswith("workspace:")}


BLOCKS = blocks(PAGE)

PUBLISHED = {
    "Rules on DataComp": parquet(
        "a.parquet", uid="u", url=URL, text=CAPTION, original_width=9, original_height=9, clip_l14_similarity_score=0.3
    ),
    "Rules on LAION": parquet(
        "a.parquet", URL=URL, TEXT=CAPTION, WIDTH=9, HEIGHT=9, similarity=0.3, aesthetic=6.0, punsafe=0.1
    ),
    "LAION-5B and re-LAION-5B": parquet(
        "a.parquet", URL=URL, TEXT=CAPTION, WIDTH=9, HEIGHT=9, similarity=0.3, hash=7, punsafe=0.1, pwatermark=0.2
    ),
    "LAION-400M": parquet(
        "a.parquet", SAMPLE_ID=1.0, URL=URL, TEXT=CAPTION, LICENSE="?", NSFW="UNLIKELY", similarity=0.3
    ),
    "DataComp": parquet(
        "a.parquet",
        {"expected_sha256": "0" * 64},
        uid="u",
        url=URL,
        text=CAPTION,
        face_bboxes=[[0.1] * 4],
        sha256="0" * 64,
    ),
    "COYO-700M": parquet("a.parquet", id=1, url=URL, text=CAPTION, watermark_score=0.1, nsfw_score_opennsfw2=0.2),
    "Conceptual Captions: CC3M": text("Train_GCC-training.tsv", f"{CAPTION}\t{URL}\n"),
    "CC12M": text("cc12m.tsv", f"{URL}\t{CAPTION}\n"),
    "SBU Captions": text("sbu-captions-all.json", json.dumps(SBU)),
    "RedCaps": text("annotations/cars_2020.json", json.dumps(REDCAPS)),
    "WIT": text("wit_v1.train.all-00000-of-00010.tsv.gz", tsv_of(**WIT), lang="en"),
    "YFCC100M and YFCC15M": text("yfcc100m_dataset.tsv", "\t".join(YFCC) + "\n"),
    "MetaCLIP": text("a.jsonl", json.dumps({"url": URL, "text": CAPTION})),
    "WebVid": text(
        "results_10M_train.csv", csv_of(videoid=1, contentUrl=URL, duration="PT9S", page_dir="p", name=CAPTION)
    ),
    "Common Voice": text(
        "validated.tsv", tsv_of(**VOICE), url="https://media.example/cv/clips/common_voice_en_1.mp3", lang="en"
    ),
    "AudioCaps": text(
        "train.csv",
        csv_of(audiocap_id=1, youtube_id="r1nicOVtvkQ", start_time=30, caption=CAPTION),
        url="https://www.youtube.com/watch?v=r1nicOVtvkQ",
        **CLIP,
    ),
    "Clotho": text(
        "clotho_captions_development.csv",
        csv_of(file_name="Distorted AM Radio noise.wav", caption_1=CAPTION, caption_2="b", caption_3="c"),
        url="https://media.example/clotho/Distorted%20AM%20Radio%20noise.wav",
    ),
    "LibriSpeech and other manifests of speech": text(
        "train-clean-100.json",
        json.dumps({"audio_filepath": "84/121123/84-121123-0000.flac", "duration": 9.5, "text": CAPTION}) + "\n",
        url="https://media.example/librispeech/84/121123/84-121123-0000.flac",
    ),
    "C4": text("c4-train.00000-of-01024.json.gz", json.dumps({"text": CAPTION, "url": "https://p"}) + "\n", url=None),
    "FineWeb": parquet("data/CC-MAIN-2024-10/a.parquet", {"url": None, "lang": "en"}, **FINEWEB),
    "HowTo100M": text(
        "HowTo100M_v1.csv",
        "video_id,category_1,category_2,rank,task_id\nnVbIUDjzWY4,Cars,Other,1,2\n",
        url="https://www.youtube.com/watch?v=nVbIUDjzWY4",
        start_s=1.0,
        end_s=9.0,
    ),
}
"""Heading on the page -> the name of a published file, what writes it, and what its row must have."""


def test_every_data_set_of_the_page_is_read() -> None:
    assert BLOCKS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("heading", PUBLISHED)
def test_the_corpus_of_the_page_reads_the_published_file(heading: str, tmp_path: Path) -> None:
    name, write, expected = PUBLISHED[heading]
    path = tmp_path / "inbox" / name
    path.parent.mkdir(parents=True)
    write(path)
    captions = {"nVbIUDjzWY4": {"start": [1.0], "end": [9.0], "text": [CAPTION]}}
    _write(tmp_path / "inbox" / "raw_caption.json", json.dumps(captions).encode())
    _write(tmp_path / "metadata.json", b'["car", "red"]')
    corpus = parse_corpus(yaml.safe_load(BLOCKS[heading]), tmp_path)
    workspace = Workspace(corpus.workspace)
    assert update_catalog(corpus, workspace).reasons == {}
    (part,) = workspace.catalog().live_parts()
    read_part(corpus, workspace, part.name)
    (row,) = read_table(workspace.table(part.name, "rows", "0000")).to_pylist()
    wanted = {"caption": CAPTION, "url": URL, "problem": None, **expected}
    assert {key: row[key] for key in wanted} == wanted
