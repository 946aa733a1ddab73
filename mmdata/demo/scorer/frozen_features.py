"""Compute what the frozen towers give for training pictures and captions; features of pictures are cached on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from mmdata.demo.scorer.clip_art import CaptionedPicture
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.score.offline import IMAGE_WIDTH, TEXT_WIDTH
from mmdata.storage.atomic import atomic_path

_TEXTS_PER_PASS = 256
_MAX_ASPECT = 6
_MIN_SIDE_PX = 8


@dataclass(frozen=True, slots=True)
class SourceFeatures:
    """The pictures of a source that could be read."""

    source: str  # name of the source
    keys: list[str]  # of the pictures
    captions: list[tuple[str, ...]]  # of each picture
    features: np.ndarray  # float16 (pictures, 1280), pooled by the image tower


def picture_features(model: Any, preprocess: Any, pictures: Sequence[CaptionedPicture], cache: Path) -> SourceFeatures:
    """The image tower's features of one source; read from `cache` if the same pictures were computed before.

    Pictures that cannot be rendered, are smaller than 8 pixels or longer than 6:1 are left out. The pictures are of one
    source, at least one, with distinct keys; `cache` is a folder.
    """
    source = pictures[0].source
    file = cache / f"{source}-{fingerprint([(p.key, p.captions) for p in pictures])}.npz"
    by_key = {picture.key: picture for picture in pictures}
    if not file.exists():
        keys: list[str] = []
        features = np.concatenate(list(_compute_features(model, preprocess, pictures, keys)))
        with atomic_path(UPath(file)) as draft, draft.open("wb") as out:
            np.savez(out, keys=np.array(keys, dtype=str), features=features)
    with np.load(file) as stored:
        keys, features = stored["keys"].tolist(), stored["features"]
    return SourceFeatures(source, keys, [by_key[key].captions for key in keys], features)


def embed_captions(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """The text tower's mean-pooled states, of unit length, float32 (texts, 384): the input of the text projection."""
    import torch

    tower = model.text
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    embeddings: dict[str, np.ndarray] = {}
    for start in range(0, len(distinct), _TEXTS_PER_PASS):
        batch = distinct[start : start + _TEXTS_PER_PASS]
        tokens = tokenizer(batch)
        tokens = tokens[:, : max(1, int((tokens != tower.config.pad_token_id).sum(1).max()))]
        mask = (tokens != tower.config.pad_token_id).long()
        with torch.inference_mode():
            states = tower.transformer(input_ids=tokens, attention_mask=mask)
            pooled = torch.nn.functional.normalize(tower.pooler(states, mask), dim=-1)
        embeddings.update(zip(batch, pooled.numpy(), strict=True))
    return np.stack([embeddings[text] for text in texts]) if len(texts) else np.empty((0, TEXT_WIDTH), np.float32)


def on_white(image: Image.Image) -> Image.Image:
    """RGB on a white background, as the download stage stores pictures."""
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _compute_features(
    model: Any, preprocess: Any, pictures: Sequence[CaptionedPicture], keys: list[str]
) -> Iterator[np.ndarray]:
    """Yield the features of each usable picture, and append its key to `keys`."""
    import torch

    trunk = model.visual.trunk.to(memory_format=torch.channels_last)
    yield np.empty((0, IMAGE_WIDTH), np.float16)
    for picture in pictures:
        try:
            image = picture.read()
        except DataError:
            continue
        if min(image.size) < _MIN_SIDE_PX or max(image.size) > _MAX_ASPECT * min(image.size):
            continue
        keys.append(picture.key)
        pixels = preprocess(on_white(image))[None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            yield trunk(pixels).half().numpy()
