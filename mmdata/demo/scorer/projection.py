"""Train the small offline scorer's projections: `python -m mmdata.demo.scorer.projection --data FOLDER --out FILE`.

FOLDER may hold `openclipart-svg_*.deb` unpacked (`dpkg-deb -x`) and icon sets as `npm pack @iconify-json/<set>` fetches
them; OpenMoji and scikit-image come with `mmdata[demo]`. Emoji that the demo shows are left out, whoever drew them.
docs/offline-scorer.md tells the sources, their licences and what was reached.
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
from mmdata.demo.scorer.captioned_pictures import EMOJI_SETS, ICON_SETS, CaptionedPicture, icon_set, openclipart
from mmdata.demo.scorer.fit import Pairs, Settings, fit
from mmdata.demo.scorer.tower_features import SourceFeatures, embed_captions, measure_pictures
from mmdata.errors import MMDataError, UserError
from mmdata.score.offline import assemble, preprocess, text_folder, tokenizer
from mmdata.storage.atomic import atomic_path

LICENCES = {"openmoji": "CC-BY-SA-4.0", "openclipart": "public domain", "skimage": "CC0 or public domain", **ICON_SETS}
ATTRIBUTION = (
    "OpenMoji (openmoji.org); Noto Emoji, Google; Open Clip Art Library; scikit-image; to stop early: Flat Color "
    "Icons, Icons8"
)
UNSEEN = "flat-color-icons"  # the source that is not trained on and says when to stop
_DRAWN_PIXELS = 256


def training_pictures(data: Path | None, held_out: Path | None = None) -> Iterator[list[CaptionedPicture]]:
    """Every training picture, a list a source.

    Args:
        data: folder with the downloaded sources; None: only what `mmdata[demo]` brings.
        held_out: a captions.parquet whose `origin` column lists clip art that is kept for evaluation.
    """
    yield [_of_emoji(emoji) for emoji in training_emoji() if not emoji.has_skin_tone]
    yield [_of_photo(photo) for photo in training_photos()]
    if data is None:
        return
    for prefix in ICON_SETS:
        for package in sorted(data.glob(f"iconify-json-{prefix}-[0-9]*.tgz")):
            icons = icon_set(package, prefix)
            yield [p for p in icons if prefix not in EMOJI_SETS or not is_demo_base(emoji_base(p.key))]
    held = _held_out_clip_art(held_out) if held_out else set()
    clip_art = [picture for picture in openclipart(data) if picture.key not in held]
    if clip_art:
        yield clip_art


def class_texts() -> list[list[str]]:
    """For each of ImageNet's 1000 classes its WordNet names, said in four ways."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    said = []
    for index in range(info.num_classes()):
        names = info.index_to_description(index)
        first = names.split(",")[0]
        said.append([first, names, f"a photo of a {first}", info.index_to_description(index, detailed=True)])
    return said


def class_embeddings(model: Any, tokens: Any, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Each class's mean over what is said of it, unit length, (classes, 384)."""
    said = embed_captions(model, tokens, [text for one in texts for text in one])
    means = np.stack([rows.mean(axis=0) for rows in np.split(said, np.cumsum([len(one) for one in texts])[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def train(
    sources: Sequence[SourceFeatures], classes: np.ndarray, settings: Settings, model: Any, tokens: Any
) -> tuple[dict[str, Any], int]:
    """The projections' tensors, and the steps taken. A source counts by the square root of its pictures.

    The source UNSEEN, if it is among them, is not trained on: it tells when to stop.

    Args:
        classes: from `class_embeddings` of `class_texts`.
    """
    head = model.visual.head
    unseen = [source for source in sources if source.source == UNSEEN and source.keys]
    return fit(
        _pairs([source for source in sources if source.source != UNSEEN], model, tokens),
        _pairs(unseen, model, tokens) if unseen else None,
        classes,
        (head.classifier_weight, head.classifier_bias),
        settings,
    )


def write_projections(
    state: dict[str, Any], out: Path, sources: Sequence[SourceFeatures], settings: Settings, steps: int
) -> str:
    """Publish the tensors with what they were trained on; gives the file's sha256."""
    from safetensors.torch import save_file

    notes = {
        "name": DEMO_NAME,
        "not": "this is not CLIP",
        "licence": "CC-BY-SA-4.0",
        "towers": ["EfficientNet-Lite0 (ImageNet)", "all-MiniLM-L6-v2"],
        "pictures": {
            s.source: {"count": len(s.keys), "licence": LICENCES[s.source]} for s in sources if s.source != UNSEEN
        },
        "stopped_early_by": {s.source: len(s.keys) for s in sources if s.source == UNSEEN},
        "steps_taken": steps,
        "attribution": ATTRIBUTION,
        "class_names": "WordNet 3.0 (c) Princeton University, for ImageNet's 1000 classes",
        "settings": asdict(settings),
    }
    with atomic_path(UPath(out)) as draft:
        save_file(state, draft, metadata={"training": json.dumps(notes, sort_keys=True)})
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 done, 2 user error."""
    parser = argparse.ArgumentParser(prog="python -m mmdata.demo.scorer.projection", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--data", type=Path, help="folder with the downloaded sources")
    parser.add_argument("--cache", type=Path, default=Path("build/offline-features"), help="measured features")
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
            sources.append(measure_pictures(model, pixels, pictures, options.cache))
            _say(f"{sources[-1].source}: {len(sources[-1].keys)} of {len(pictures)} pictures")
        classes = class_embeddings(model, tokens, class_texts())
        state, steps = train(sources, classes, settings, model, tokens)
        digest = write_projections(state, options.out, sources, settings, steps)
    except MMDataError as error:
        _say(str(error))
        return 2
    _say(f"{options.out}: {steps} steps, sha256 {digest}")
    return 0


def _pairs(sources: Sequence[SourceFeatures], model: Any, tokens: Any) -> Pairs:
    captions = [texts for source in sources for texts in source.captions]
    embedded = embed_captions(model, tokens, [text for texts in captions for text in texts])
    return Pairs(
        features=np.concatenate([source.features for source in sources]),
        captions=np.split(embedded, np.cumsum([len(texts) for texts in captions])[:-1]),
        weights=np.concatenate([np.full(len(s.keys), len(s.keys) ** -0.5) for s in sources if s.keys]),
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _of_emoji(emoji: Emoji) -> CaptionedPicture:
    def read() -> Image.Image:
        return Image.open(io.BytesIO(draw(emoji, _DRAWN_PIXELS))).convert("RGBA")

    return CaptionedPicture("openmoji", emoji.code, (emoji.name,), read)


def _of_photo(photo: Photo) -> CaptionedPicture:
    return CaptionedPicture("skimage", photo.name, (photo.caption,), lambda: Image.fromarray(photo.load()))


def _held_out_clip_art(captions: Path) -> set[str]:
    import polars as pl

    origins = pl.read_parquet(captions, columns=["origin"])["origin"].to_list()
    return {origin.partition("openclipart/svg/")[2] for origin in origins} - {""}


if __name__ == "__main__":
    sys.exit(main())
