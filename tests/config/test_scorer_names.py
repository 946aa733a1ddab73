"""The names of open_clip without open_clip: they are its own, and a wrong one is an error with the nearest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmdata.config import Score, scorer_names
from mmdata.config.load import load_corpus
from mmdata.config.scorer_names import check_names, known_models
from mmdata.errors import UserError


def test_the_names_are_those_that_open_clip_has() -> None:
    open_clip = pytest.importorskip("open_clip")
    known = known_models()
    assert set(known) == set(open_clip.list_models())
    assert {(model, tag) for model, tags in known.items() for tag in tags} == set(open_clip.list_pretrained())
    for model, tags in known.items():
        for tag, published in tags.items():
            settings = open_clip.get_pretrained_cfg(model, tag)
            assert (published.hub, published.url) == (settings.get("hf_hub", ""), settings.get("url", ""))


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ({"model": "ViT-B32"}, "ViT-B-32"),
        ({"model": "vit-l-14"}, "ViT-L-14"),
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79"}, "laion2b_s34b_b79k"),
        ({"model": "ViT-L-14"}, "laion2b_s32b_b82k"),  # the default tag is that of another model
        ({"model": "ViT-B-32", "pretrained": None}, "at random"),
    ],
)
def test_a_wrong_name_in_corpus_yaml_is_an_error_that_names_the_file_and_the_nearest(
    tmp_path: Path, score: dict, says: str
) -> None:
    path = tmp_path / "corpus.yaml"
    text = ", ".join(f"{key}: {value or 'null'}" for key, value in score.items())
    source = "{name: web, kind: laion, files: a.parquet}"
    path.write_text(f"workspace: w\nsources: [{source}]\nscore: {{{text}}}\n")
    with pytest.raises(UserError, match=says) as raised:
        load_corpus(path)
    assert str(raised.value).startswith(f"{path}: score.")
    assert "Remedy" in str(raised.value)


@pytest.mark.parametrize(
    "score",
    [
        {},
        {"model": "demo"},
        {"model": "ViT-B/32", "pretrained": "openai"},
        {"model": "ViT-B-32", "pretrained": "laion2b-s34b-b79k"},
        {"model": "ViT-B-32-quickgelu", "pretrained": "openai"},
        {"model": "hf-hub:owner/name"},
        {"model": "local-dir:not/there/yet"},
    ],
)
def test_right_names_pass(score: dict) -> None:
    check_names(Score(**score))


def test_a_checkpoint_of_the_users_own_passes(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(b"")
    check_names(Score(model="ViT-B-32", pretrained=str(checkpoint)))


def test_nothing_is_checked_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_names, "known_models", dict)
    check_names(Score(model="ViT-B32"))


def test_neither_torch_nor_open_clip_is_imported() -> None:
    code = (
        "import sys; from mmdata.config import Score; from mmdata.config.scorer_names import check_names; "
        "check_names(Score()); print(sorted({'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
