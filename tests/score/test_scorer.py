from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from mmdata.config import Score
from mmdata.config.scorers import scorer_name
from mmdata.errors import UserError
from mmdata.score.decode import decode_picture
from mmdata.score.preprocess import Preprocess
from mmdata.score.pretrained import LoadedModel, check_names, load_model
from mmdata.score.scorer import IMAGES_PER_THREAD, TEXTS_PER_THREAD, ClipScorer, load_scorer, pair_scores
from mmdata.score.text_tower import trim_text_tower
from tests.support.scoring import MEAN, STD, TINY, encode, photo, save_model

CAPTIONS = ["a cat", "", "two dogs beside a red house on a hill " * 3, "一只猫坐在草地上", "x\x00y\nz", "word " * 500]


def reference(folder: Path, pictures: list[bytes], captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings as open_clip's README computes them."""
    import io

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        stack = torch.stack([preprocess(Image.open(io.BytesIO(p)).convert("RGB")) for p in pictures])
        images, texts = model.encode_image(stack), model.encode_text(tokenizer(captions))
    return tuple(torch.nn.functional.normalize(f.float(), dim=-1).numpy() for f in (images, texts))


def ours(scorer: ClipScorer, pictures: list[bytes]) -> np.ndarray:
    pixels = np.empty((len(pictures), *scorer.preprocess.size, 3), np.uint8)
    for at, picture in enumerate(pictures):
        assert decode_picture(picture, scorer.preprocess, pixels[at]).problem is None
    return scorer.embed_images(pixels)


@pytest.mark.parametrize("side", [48, 256, 640, 1100])
def test_scores_equal_those_of_a_plain_open_clip_loop(scorer: ClipScorer, tiny_folder: Path, side: int) -> None:
    pictures = [encode(photo(i, int(side * 1.3), side)) for i in range(6)] + [encode(photo(9, side, int(side * 2.1)))]
    captions = [f"picture {i} of {side} pixels with some words" for i in range(len(pictures))]
    images, texts = reference(tiny_folder, pictures, captions)
    wanted = (images * texts).sum(1)
    found = pair_scores(ours(scorer, pictures), scorer.embed_texts(captions))
    bound = 1e-3 if side < 512 else 0.01  # from 512 on JPEG is decoded at a fraction of its size
    assert np.abs(found - wanted).mean() < bound
    assert np.abs(found - wanted).max() < 3 * bound


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (150, 333), (64, 64), (20, 500), (31, 40)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_every_resize_mode_gives_open_clips_pixels(mode: str, size: tuple[int, int], interpolation: str) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = {"size": 64, "mean": MEAN, "std": STD, "resize_mode": mode, "interpolation": interpolation}
    picture = photo(3, *size)
    wanted = image_transform_v2(PreprocessCfg(**config, fill_color=0), is_train=False)(picture)
    wanted = (wanted * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    out = np.full((64, 64, 3), 77, np.uint8)
    decode_picture(encode(picture, "PNG"), Preprocess.from_open_clip(config), out)
    difference = np.abs(out.transpose(2, 0, 1) - wanted.numpy())
    assert difference.mean() < 0.5 and difference.max() < 3.01  # grey levels of 255


def test_a_cut_text_tower_gives_the_same_embeddings(scorer: ClipScorer, tiny_folder: Path) -> None:
    _, wanted = reference(tiny_folder, [encode(photo(1))], CAPTIONS)
    np.testing.assert_allclose(scorer.embed_texts(CAPTIONS), wanted, atol=2e-6)
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(CAPTIONS)
    assert scorer._needed_lengths(tokens).tolist()[:2] == [4, 2]  # start, words, end: the rest of 77 is not computed


@pytest.mark.parametrize(
    "change",
    [
        {"text_cfg": {"no_causal_mask": True}},
        {"text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
        {"text_cfg": {"pool_type": "eos", "eos_id": 49407}},
        {"text_cfg": {"proj_type": "none"}, "embed_dim": 64},
        {"text_cfg": {"proj_bias": True}},
        {"custom_text": True},
        {"custom_text": True, "text_cfg": {"embed_cls": True, "pad_id": 0}},
    ],
    ids=str,
)
def test_towers_of_every_kind_score_as_they_do_whole(change: dict) -> None:
    config = {**TINY, **change, "text_cfg": {**TINY["text_cfg"], **change.get("text_cfg", {})}}
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model = kind(**config).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tokens = tokenizer(CAPTIONS)
    encode_text, width = trim_text_tower(model)
    with torch.no_grad():
        for row, length in zip(tokens, width(tokens).tolist(), strict=True):
            torch.testing.assert_close(encode_text(row[None, :length]), model.encode_text(row[None]), atol=1e-5, rtol=0)
    preprocess = Preprocess(size=(64, 64))
    embedded = ClipScorer(LoadedModel("x", model, preprocess, tokenizer)).embed_texts(CAPTIONS)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).numpy()
    np.testing.assert_allclose(embedded, wanted, atol=2e-6)


def test_a_text_tower_that_cannot_be_cut_is_run_whole(tiny: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmdata.score import text_tower

    monkeypatch.setattr(
        text_tower,
        "_trim_causal_tower",
        lambda tower, pool, eos: (lambda t: torch.ones(len(t), 32), lambda t: t[:, 0] * 0 + 3),
    )
    loaded = load_model(tiny)
    scorer = ClipScorer(loaded)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(loaded.model.encode_text(loaded.tokenizer(CAPTIONS)), dim=-1)
    np.testing.assert_allclose(scorer.embed_texts(CAPTIONS), wanted.numpy(), atol=2e-6)


def test_batch_size_changes_neither_values_nor_order(tiny_folder: Path) -> None:
    pictures = [encode(photo(i)) for i in range(11)]
    captions = [f"{'long ' * (i % 5)}caption {i}" for i in range(11)]
    found = []
    for batch_size in (1, 4, 64):
        scorer = load_scorer(Score(model=f"local-dir:{tiny_folder}", device="cpu", batch_size=batch_size))
        found.append((ours(scorer, pictures), scorer.embed_texts(captions)))
    for images, texts in found[1:]:
        np.testing.assert_allclose(images, found[0][0], atol=1e-5)
        np.testing.assert_allclose(texts, found[0][1], atol=1e-5)
    assert np.allclose(np.linalg.norm(found[0][0], axis=1), 1, atol=1e-5)


def test_a_cpu_takes_no_more_at_once_than_fits_its_caches(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ClipScorer(load_model(Score(model=str(tiny_folder))), batch_size=256)
    seen: dict[str, list[int]] = {"images": [], "texts": []}
    for kind, sizes in seen.items():
        name = f"_encode_{kind[:-1]}"
        real = getattr(own, name)
        monkeypatch.setattr(own, name, lambda batch, sizes=sizes, real=real: sizes.append(len(batch)) or real(batch))
    count = 40 * torch.get_num_threads()
    own.embed_images(np.zeros((count, *own.preprocess.size, 3), np.uint8))
    own.embed_texts(["a cat"] * count)
    assert (max(seen["images"]), sum(seen["images"])) == (IMAGES_PER_THREAD * torch.get_num_threads(), count)
    assert (max(seen["texts"]), sum(seen["texts"])) == (TEXTS_PER_THREAD * torch.get_num_threads(), count)


def test_nothing_to_embed_gives_nothing(scorer: ClipScorer) -> None:
    assert scorer.embed_images(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 32)
    assert scorer.embed_texts([]).shape == (0, 32)


def test_pictures_of_the_wrong_shape_are_refused(scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        scorer.embed_images(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        scorer.embed_images(np.zeros((1, 64, 64, 3), np.float32))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near_and_the_cosine_is_fp32(tiny_folder: Path, scorer: ClipScorer, precision: str) -> None:
    low = load_scorer(Score(model=f"local-dir:{tiny_folder}", device="cpu", precision=precision))
    pictures = [encode(photo(i)) for i in range(4)]
    exact, near = ours(scorer, pictures), ours(low, pictures)
    assert near.dtype == np.float32 and not np.array_equal(exact, near)
    assert (exact * near).sum(1).min() > 0.99
    assert low.fingerprint != scorer.fingerprint, "scores of different number formats never mix"


def test_the_model_is_loaded_once_a_process(tiny: Score) -> None:
    assert load_scorer(tiny) is load_scorer(tiny)


def test_scorers_of_different_weights_or_preprocessing_have_different_fingerprints(
    tmp_path: Path, scorer: ClipScorer
) -> None:
    def mark(folder: str, **settings) -> str:  # type: ignore[no-untyped-def]
        path = save_model(tmp_path / folder / "tiny", **settings)
        return load_scorer(Score(model=f"local-dir:{path}", device="cpu")).fingerprint

    same, other_weights = mark("a", seed=1), mark("b", seed=2)
    other_mean, other_mode = mark("c", seed=1, mean=[0.5, 0.5, 0.5]), mark("d", seed=1, resize_mode="squash")
    assert same == scorer.fingerprint  # the same model elsewhere is the same scorer
    assert len({same, other_weights, other_mean, other_mode}) == 4


def test_one_changed_weight_changes_the_fingerprint(tmp_path: Path, scorer: ClipScorer) -> None:
    folder = save_model(tmp_path / "tiny", seed=1)
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    weights["token_embedding.weight"][12345, 7] += 1e-4
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert load_scorer(Score(model=f"local-dir:{folder}", device="cpu")).fingerprint != scorer.fingerprint


@pytest.fixture
def named(tmp_path: Path) -> str:
    """A tiny model under a name, as open_clip's own are."""
    (tmp_path / "tiny-named.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-named.json")
    return "tiny-named"


def test_a_checkpoint_file_is_loaded_by_its_path(tmp_path: Path, named: str) -> None:
    torch.manual_seed(5)
    checkpoint = tmp_path / "my-run.pt"
    torch.save(open_clip.CLIP(**TINY).state_dict(), checkpoint)
    first = load_scorer(Score(model=named, pretrained=str(checkpoint), device="cpu"))
    assert first.name == "tiny-named/my-run.pt"
    torch.save(open_clip.CLIP(**TINY).state_dict(), checkpoint)
    again = load_scorer(Score(model=named, pretrained=str(checkpoint), device="cpu"))
    assert again.fingerprint != first.fingerprint  # another file under the same name is not taken from the cache


def test_a_checkpoint_that_needs_unpickling_is_refused(tmp_path: Path, named: str) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": Hostile()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(UserError, match=name):
            load_scorer(Score(model=named, pretrained=str(tmp_path / name), device="cpu"))
    assert not (tmp_path / "executed").exists()


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
    asked = {}

    def create(model: str, tag: str | None, **settings: object) -> None:
        asked[model, tag] = settings["force_quick_gelu"]
        raise OSError("enough")

    monkeypatch.setattr(open_clip, "create_model", create)
    pairs = [("ViT-B-32", "openai"), ("ViT-B-32", "laion2b_s34b_b79k"), ("ViT-B-32-quickgelu", "openai")]
    for model, tag in pairs:
        with pytest.raises(UserError):
            load_model(Score(model=model, pretrained=tag))
    assert list(asked.values()) == [True, False, True]
    with pytest.raises(UserError, match=r"Remedy: model: ViT-B-32$"):
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": False})
        load_model(Score(model="ViT-B-32-quickgelu", pretrained="metaclip_400m"))


def test_a_device_that_is_not_there_is_an_error(tiny: Score) -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(UserError, match=r"score\.device"):
            load_scorer(tiny.model_copy(update={"device": device}))


def test_names_hold_no_local_paths() -> None:
    assert scorer_name(Score()) == "ViT-B-32/laion2b_s34b_b79k"
    assert scorer_name(Score(model="ViT-B-32", pretrained="/home/someone/run.pt")) == "ViT-B-32/run.pt"
    assert scorer_name(Score(model="local-dir:/home/someone/mine")) == "local-dir:mine"
    assert scorer_name(Score(model="hf-hub:laion/x")) == "hf-hub:laion/x"
    assert scorer_name(Score(model="demo")) == "demo (small offline scorer)"


def test_a_folder_called_demo_is_not_taken_for_the_demo_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmdata.config.scorers import resolved

    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "scorer").mkdir(parents=True)
    (tmp_path / "demo" / "scorer" / "open_clip_config.json").write_text("{}")
    assert resolved(Score(model="demo")).model == "demo"
    assert resolved(Score(model="./demo")).model == "local-dir:demo/scorer"
    assert resolved(Score(model="ViT-B/32")).model == "ViT-B/32"
