"""Models and checkpoints are found by name; wrong names and weights are errors with a remedy."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.pretrained import check_names, load_model
from mmdata.score.scorer import ClipScorer, load_scorer
from tests.support.scoring import TINY, save_model


def test_one_changed_weight_changes_the_fingerprint(tmp_path: Path, scorer: ClipScorer) -> None:
    folder = save_model(tmp_path / "tiny", seed=1)
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    weights["token_embedding.weight"][12345, 7] += 1e-4
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert load_scorer(Score(model=f"local-dir:{folder}", device="cpu")).fingerprint != scorer.fingerprint


def test_a_checkpoint_file_is_loaded_by_its_path(tmp_path: Path, named: str) -> None:
    torch.manual_seed(5)
    checkpoint = tmp_path / "my-run.pt"
    torch.save(open_clip.CLIP(**TINY).state_dict(), checkpoint)
    first = load_scorer(Score(model=named, pretrained=str(checkpoint), device="cpu"))
    assert first.name == "tiny-named/my-run.pt"
    torch.save(open_clip.CLIP(**TINY).state_dict(), checkpoint)
    again = load_scorer(Score(model=named, pretrained=str(checkpoint), device="cpu"))
    assert again.fingerprint != first.fingerprint  # another file under the same name is not taken from the cache


def test_weights_that_do_not_fit_are_an_error_that_names_them(tmp_path: Path, named: str) -> None:
    torch.save({"visual.proj": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"tiny-named/other\.pt cannot be loaded"):
        load_scorer(Score(model=named, pretrained=str(tmp_path / "other.pt"), device="cpu"))


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ({"model": "ViT-B32"}, "ViT-B-32"),
        ({"model": "vit-l-14"}, "ViT-L-14"),
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79"}, "laion2b_s34b_b79k"),
        ({"model": "ViT-B-32", "pretrained": "webli"}, "SigLIP"),  # the tag exists, for other models
        ({"model": "ViT-B-32", "pretrained": None}, "at random"),
        ({"model": "hf-hub:"}, "names nothing"),
        ({"model": "local-dir:/no/such"}, "open_clip_config.json"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(score: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_names(Score(**score))


def test_weights_out_of_reach_are_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Cannot reach the host\nlong story")

    monkeypatch.setattr(open_clip, "create_model", no_network)
    with pytest.raises(UserError, match=r"ViT-B-32/laion2b_s34b_b79k cannot be loaded: Cannot reach the host\. Remedy"):
        load_scorer(Score(device="cpu"))


def test_openai_weights_get_the_activation_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_gelu = {}

    def create(model: str, tag: str | None, **settings: object) -> None:
        quick_gelu[model, tag] = settings["force_quick_gelu"]
        raise OSError("enough")

    monkeypatch.setattr(open_clip, "create_model", create)
    pairs = [("ViT-B-32", "openai"), ("ViT-B-32", "laion2b_s34b_b79k"), ("ViT-B-32-quickgelu", "openai")]
    for model, tag in pairs:
        with pytest.raises(UserError):
            load_model(Score(model=model, pretrained=tag))
    assert list(quick_gelu.values()) == [True, False, True]
    with pytest.raises(UserError, match=r"Remedy: model: ViT-B-32$"):
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": False})
        load_model(Score(model="ViT-B-32-quickgelu", pretrained="metaclip_400m"))
