"""Fingerprints stay: a workspace that version 0.1.0 built is up to date for the present code.

The expected values were computed by the code of version 0.1.0, those of rows by version 3 of the code that reads rows,
and those of releases with the default balance when that became `alpha`, which thins nothing.
Change one only together with `CODE_VERSIONS`.
`tests/test_compatibility.py` holds identities and the bytes of a release in the same way.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mmdata.config.load import parse_corpus
from mmdata.engine.freshness import plan_part
from mmdata.engine.stage_fingerprints import named_settings, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.releases.draft import release_inputs
from mmdata.workspace.layout import PART_STAGES, Part, Workspace

CHECKPOINT_MODIFIED_S = 1_700_000_000


class Fingerprints(NamedTuple):
    """What decides whether the tables of one source are up to date.

    Args:
        settings: of the settings of rows, media and features.
        named: of the same settings with their names, as a part stamp stores them.
        plan: of the plan of a part that has no tables yet.
        release: of the inputs of a release without parts.
    """

    settings: tuple[str, ...]
    named: tuple[str, ...]
    plan: str
    release: str


AUDIO_CORPUS: dict[str, Any] = {
    "workspace": "w",
    "sources": [{"name": "calls", "kind": "audio", "files": "c.parquet", "columns": {"url": "u", "caption": "t"}}],
}
CORPORA: dict[str, dict[str, Any]] = {
    "defaults": {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "a/*.parquet"}]},
    "kinds": {
        "workspace": "w",
        "sources": [
            {"name": "pairs", "kind": "pairs", "files": "a.csv", "columns": {"url": "link", "caption": "alt"}},
            {"name": "films", "kind": "video", "files": "b.jsonl", "columns": {"url": "u", "caption": "c"}},
            {"name": "texts", "kind": "text", "files": "d.jsonl", "columns": {"caption": "text"}},
            {"name": "howto", "kind": "howto100m", "files": "h.csv", "captions": "raw.json"},
        ],
    },
    "clips": AUDIO_CORPUS | {"clips": {"frames": 4, "choose": "scene", "sound": False, "keep_video": True}},
    "privacy": AUDIO_CORPUS | {"privacy": {"blur_faces": True, "drop_voices": True, "min_face_score": 0.4}},
    "faces": AUDIO_CORPUS | {"privacy": {"count_faces": True, "min_face_score": 0.7}},
    "synthesis": AUDIO_CORPUS | {"seed": 7, "synthesis": {"speech": 0.25}},
    "local scorer": AUDIO_CORPUS | {"score": {"model": "local-dir:scorer", "precision": "fp32"}},
    "sections": AUDIO_CORPUS
    | {
        "seed": 7,
        "download": {"image_size": 512, "encode_quality": 90, "max_bytes": 5_000_000, "max_pixels": 10_000_000},
        "score": {"model": "ViT-L-14", "pretrained": "openai", "audio_model": "laion/clap", "transcriber": "whisper"},
        "select": {
            "filter": {"top_fraction": 0.3, "top_fraction_tolerance": 0.1, "languages": ["en"], "min_words": 3},
            "dedup": {"phash_bits": 6, "semantic_eps": 0.1, "clusters": 5},
            "balance": {"max_ratio": 2.0, "by": "tokens", "max_per_domain": 9, "keep_of_domain": "hash"},
            "oversample": {"threshold": 0.02, "max_repeats": 2, "signatures": False},
        },
        "shards": {"shard_mb": 16, "validation_fraction": 0.1},
        "instruct": {"tasks": ["caption"], "languages": ["en"], "formats": ["llava"], "images": "base64"},
        "engine": {"workers": 3},
        "releases": {"keep": 2},
        "observe": {"log_format": "json"},
        "alerts": {"timeout_s": 3},
    },
}

EXPECTED: dict[str, Fingerprints] = {
    "defaults/web": Fingerprints(
        settings=("f709470506543fc9", "0df02a0b979c5b7d", "7703e2902a239744"),
        named=("318bdcaec1aeb6ef", "a7a0e230072e1782", "cb4fa4f051d8f6b0"),
        plan="57a3fd587498bcf1",
        release="a46b95a47088b1fc",
    ),
    "kinds/pairs": Fingerprints(
        settings=("908cca7384ba42a4", "0df02a0b979c5b7d", "7703e2902a239744"),
        named=("ddaaeaaf5ca4b06c", "a7a0e230072e1782", "cb4fa4f051d8f6b0"),
        plan="0b2a787fa30c0630",
        release="a46b95a47088b1fc",
    ),
    "kinds/films": Fingerprints(
        settings=("25bd187a03534877", "f25fea0223a4b487", "7703e2902a239744"),
        named=("9fc9147513c99637", "0e0de8e670cc2fb7", "cb4fa4f051d8f6b0"),
        plan="8ee564601a281a0e",
        release="a46b95a47088b1fc",
    ),
    "kinds/texts": Fingerprints(
        settings=("eb881f0efebd14b2", "0df02a0b979c5b7d", "7703e2902a239744"),
        named=("bafb43c61d0cf9df", "a7a0e230072e1782", "cb4fa4f051d8f6b0"),
        plan="842180b01f9d9a5a",
        release="a46b95a47088b1fc",
    ),
    "kinds/howto": Fingerprints(
        settings=("b6b5a3183362c44e", "f25fea0223a4b487", "7703e2902a239744"),
        named=("bad4c8c0eee80189", "0e0de8e670cc2fb7", "cb4fa4f051d8f6b0"),
        plan="00640da380f1d8d6",
        release="a46b95a47088b1fc",
    ),
    "clips/calls": Fingerprints(
        settings=("f8bd601326840bc1", "5554eebcdd5fb5ae", "7703e2902a239744"),
        named=("a4b27de181d1d05b", "9239533806620192", "cb4fa4f051d8f6b0"),
        plan="fdfad163f1ecebc0",
        release="a46b95a47088b1fc",
    ),
    "privacy/calls": Fingerprints(
        settings=("f8bd601326840bc1", "d9c4fa47cd38e46a", "7703e2902a239744"),
        named=("a4b27de181d1d05b", "e21fa2b8dd3ec8e1", "cb4fa4f051d8f6b0"),
        plan="e35228dde4f88216",
        release="a46b95a47088b1fc",
    ),
    "faces/calls": Fingerprints(
        settings=("f8bd601326840bc1", "f25fea0223a4b487", "b2f37ee969ad3456"),
        named=("a4b27de181d1d05b", "0e0de8e670cc2fb7", "fa5455fe31f44de0"),
        plan="8459ed7acd67852d",
        release="a46b95a47088b1fc",
    ),
    "synthesis/calls": Fingerprints(
        settings=("f8bd601326840bc1", "daaccb05e949e65c", "7703e2902a239744"),
        named=("a4b27de181d1d05b", "8db5dec26bfff52d", "cb4fa4f051d8f6b0"),
        plan="2982eb71125525d3",
        release="9a78ceb05dc40d00",
    ),
    "local scorer/calls": Fingerprints(
        settings=("f8bd601326840bc1", "f25fea0223a4b487", "54220be95ae30bf0"),
        named=("a4b27de181d1d05b", "0e0de8e670cc2fb7", "1f4574b893244ef4"),
        plan="a36d52b0b4000085",
        release="c160f5dfbd1dacc9",
    ),
    "sections/calls": Fingerprints(
        settings=("f8bd601326840bc1", "70a16d4de8410182", "e42d2d7161fdf438"),
        named=("a4b27de181d1d05b", "2ed4d0dc3ab5e91a", "d7a553d50c9aa963"),
        plan="bd2005b626dac360",
        release="6584d1372e48cb80",
    ),
}
"""Corpus and source -> the values of version 0.1.0."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a local checkpoint, which counts by its name, size and time of change."""
    checkpoint = tmp_path / "scorer" / "open_clip_model.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    os.utime(checkpoint, (CHECKPOINT_MODIFIED_S, CHECKPOINT_MODIFIED_S))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", EXPECTED)
def test_fingerprints_are_those_of_version_0_1_0(case: str, folder: Path) -> None:
    corpus_name, source = case.split("/")
    corpus, workspace = parse_corpus(CORPORA[corpus_name]), Workspace(str(folder / "w"))
    part = Part(f"{source}-000000", source, "a.parquet", start=0, stop=1000, digest="ab" * 32)
    actual = Fingerprints(
        settings=tuple(stage_settings(corpus, part, stage) for stage in PART_STAGES),
        named=tuple(fingerprint(named_settings(corpus, part, stage)) for stage in PART_STAGES),
        plan=plan_part(corpus, workspace, part, opt_out="").fingerprint,
        release=release_inputs(corpus, workspace, []),
    )
    assert actual == EXPECTED[case]


def test_every_source_has_expected_values() -> None:
    assert set(EXPECTED) == {f"{name}/{source['name']}" for name, data in CORPORA.items() for source in data["sources"]}
