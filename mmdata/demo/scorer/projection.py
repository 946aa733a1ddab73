"""Train the small offline scorer's projections: `python -m mmdata.demo.scorer.projection --data FOLDER --out FILE`.

FOLDER may hold `openclipart-svg_*.deb` unpacked by `dpkg-deb -x`, and icon sets downloaded by
`npm pack @iconify-json/<set>`; OpenMoji and scikit-image come with `mmdata[demo]`. Emoji that the demo shows are left
out, whoever drew them. docs/offline-scorer.md lists the sources, their licences and the measured quality.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from mmdata.config.scorers import DEMO_NAME
from mmdata.demo.drawings import Emoji, Photo, draw, emoji_base, is_demo_base, training_emoji, training_photos
from mmdata.demo.scorer.clip_art import EMOJI_SETS, ICON_SETS, CaptionedPicture, icon_set, openclipart
from mmdata.demo.scorer.fit import Pairs, Settings, fit
from mmdata.demo.scorer.frozen_features import SourceFeatures, embed_captions, picture_features
from mmdata.errors import MMDataError, UserError
from mmdata.score.offline import assemble, preprocess, text_folder, tokenizer
from mmdata.storage.atomic import atomic_path

LICENCES = {"openmoji": "CC-BY-SA-4.0", "openclipart": "public domain", "skimage": "CC0 or public domain", **ICON_SETS}
ATTRIBUTION = (
    "OpenMoji (openmoji.org); Noto Emoji, Google; Open Clip Art Library; scikit-image; to stop early: Flat Color "
    "Icons, Icons8"
)
HELD_OUT_SOURCE = "flat-color-icons"  # not trained on: its AUC decides when to stop
_DRAWING_PX = 256


def training_pictures(data: Path | None, held_out: Path | None = None) -> Iterator[list[CaptionedPicture]]:
    """All training pictures, a list for each source.

    Args:
        data: folder with the downloaded sources; None: only the sources that come with `mmdata[demo]`.
        held_out: a captions.parquet whose `origin` column lists clip art that is kept for evaluation.
    """
    yield [_emoji_picture(emoji) for emoji in training_emoji() if not emoji.has_skin_tone]
    yield [_photo_picture(photo) for photo in training_photos()]
    if data is None:
        return
    for prefix in ICON_SETS:
        for package in sorted(data.glob(f"iconify-json-{prefix}-[0-9]*.tgz")):
            icons = icon_set(package, prefix)
            yield [icon for icon in icons if prefix not in EMOJI_SETS or not is_demo_base(emoji_base(icon.key))]
    held_out_keys = _clip_art_keys(held_out) if held_out else set()
    clip_art = [picture for picture in openclipart(data) if picture.key not in held_out_keys]
    if clip_art:
        yield clip_art


def class_texts() -> list[list[str]]:
    """For each of ImageNet's 1000 classes, four texts with its WordNet names."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    texts = []
    for index in range(info.num_classes()):
        names = info.index_to_description(index)
        first = names.split(",")[0]
        texts.append([first, names, f"a photo of a {first}", info.index_to_description(index, detailed=True)])
    return texts


def class_embeddings(model: Any, tokens: Any, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The mean embedding of each class's texts, of unit length, (classes, 384)."""
    means = np.stack([rows.mean(axis=0) for rows in _embed_groups(model, tokens, texts)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def train(
    sources: Sequence[SourceFeatures], classes: np.ndarray, settings: Settings, model: Any, tokens: Any
) -> tuple[dict[str, Any], int]:
    """The projections' tensors, and the steps taken. A source has the weight of the square root of its pictures.

    HELD_OUT_SOURCE, if it is among the sources, is not trained on: its AUC decides when to stop.
    """
    head = model.visual.head
    held_out = [source for source in sources if source.source == HELD_OUT_SOURCE and source.keys]
    return fit(
        _pairs([source for source in sources if source.source != HELD_OUT_SOURCE], model, tokens),
        _pairs(held_out, model, tokens) if held_out else None,
        classes,
        (head.classifier_weight, head.classifier_bias),
        settings,
    )


def write_projections(
    state: dict[str, Any], out: Path, sources: Sequence[SourceFeatures], settings: Settings, steps: int
) -> str:
    """Write the tensors, with notes on their training, to a safetensors file; returns its sha256."""
    from safetensors.torch import save_file

    trained_on = [source for source in sources if source.source != HELD_OUT_SOURCE]
    notes = {
        "name": DEMO_NAME,
        "not": "this is not CLIP",
        "licence": "CC-BY-SA-4.0",
        "towers": ["EfficientNet-Lite0 (ImageNet)", "all-MiniLM-L6-v2"],
        "pictures": {s.source: {"count": len(s.keys), "licence": LICENCES[s.source]} for s in trained_on},
        "stopped_early_by": {s.source: len(s.keys) for s in sources if s.source == HELD_OUT_SOURCE},
        "steps_taken": steps,
        "attribution": ATTRIBUTION,
        "class_names": "WordNet 3.0 (c) Princeton University, for ImageNet's 1000 classes",
        "settings": asdict(settings),
    }
    with atomic_path(UPath(out)) as draft:
        save_file(state, draft, metadata={"training": json.dumps(notes, sort_keys=True)})
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write the projections; exit code 0, or 2 after an error of the user."""
    parser = argparse.ArgumentParser(prog="python -m mmdata.demo.scorer.projection", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--data", type=Path, help="folder with the downloaded sources")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/offline-features"), help="folder for computed features"
    )
    parser.add_argument("--hold-out", type=Path, help="captions.parquet whose `origin` files are left out")
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--seed", type=int, default=Settings().seed)
    options = parser.parse_args(arguments)
    settings = Settings(steps=options.steps, seed=options.seed)
    try:
        if options.data and not options.data.is_dir():
            raise UserError(f"{options.data}: no such folder. Remedy: see docs/offline-scorer.md for what it holds.")
        folder = text_folder()
        model, pixels, tokens = assemble(settings.dim, folder).eval(), preprocess(), tokenizer(folder)
        sources = []
        for pictures in training_pictures(options.data, options.hold_out):
            sources.append(picture_features(model, pixels, pictures, options.cache))
            _log(f"{sources[-1].source}: {len(sources[-1].keys)} of {len(pictures)} pictures")
        classes = class_embeddings(model, tokens, class_texts())
        state, steps = train(sources, classes, settings, model, tokens)
        digest = write_projections(state, options.out, sources, settings, steps)
    except MMDataError as error:
        _log(str(error))
        return 2
    _log(f"{options.out}: {steps} steps, sha256 {digest}")
    return 0


def _pairs(sources: Sequence[SourceFeatures], model: Any, tokens: Any) -> Pairs:
    captions = [texts for source in sources for texts in source.captions]
    return Pairs(
        features=np.concatenate([source.features for source in sources]),
        captions=_embed_groups(model, tokens, captions),
        weights=np.concatenate([np.full(len(s.keys), len(s.keys) ** -0.5) for s in sources if s.keys]),
    )


def _embed_groups(model: Any, tokens: Any, groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """The embeddings of each group of texts."""
    embedded = embed_captions(model, tokens, [text for group in groups for text in group])
    return np.split(embedded, np.cumsum([len(group) for group in groups])[:-1])


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")


def _emoji_picture(emoji: Emoji) -> CaptionedPicture:
    def read() -> Image.Image:
        return Image.open(io.BytesIO(draw(emoji, _DRAWING_PX))).convert("RGBA")

    return CaptionedPicture("openmoji", emoji.code, (emoji.name,), read)


def _photo_picture(photo: Photo) -> CaptionedPicture:
    return CaptionedPicture("skimage", photo.name, (photo.caption,), lambda: Image.fromarray(photo.load()))


def _clip_art_keys(captions: Path) -> set[str]:
    import polars as pl

    origins = pl.read_parquet(captions, columns=["origin"])["origin"].to_list()
    return {origin.partition("openclipart/svg/")[2] for origin in origins} - {""}


if __name__ == "__main__":
    sys.exit(main())
