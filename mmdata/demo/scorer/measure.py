"""Measure the small offline scorer on pictures it was not trained on: `python -m mmdata.demo.scorer.measure`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdata.demo.drawings import demo_emoji, draw, training_emoji
from mmdata.demo.scorer.quality import measure
from mmdata.demo.scorer.tower_features import flatten
from mmdata.score.offline import build

MIN_PAIRS = 20  # fewer say nothing
SEEN_SOURCES = ("openmoji", "openclipart")  # other pictures of these were trained on


@dataclass(frozen=True, slots=True)
class Embedded:
    """Pairs as a scorer embeds them: unit length float32 (rows, dim), and what they are grouped by."""

    images: np.ndarray
    texts: np.ndarray
    captions: list[str]
    groups: list[str]

    def where(self, chosen: np.ndarray) -> Embedded:
        """The rows at these positions."""
        captions, groups = ([texts[i] for i in chosen] for texts in (self.captions, self.groups))
        return Embedded(self.images[chosen], self.texts[chosen], captions, groups)


def embed_pairs(scorer: tuple[Any, Any, Any], pairs: Iterable[tuple[Image.Image, str, str]]) -> Embedded:
    """Embed (picture, caption, group) with `build()`'s model, preprocessing and tokenizer, eight at a time."""
    import torch

    model, preprocess, tokenizer = scorer
    model.visual.to(memory_format=torch.channels_last)
    images, texts, captions, groups = [], [], [], []
    with torch.inference_mode():
        for some in _eights(pairs):
            pixels = torch.stack([preprocess(flatten(image)) for image, _, _ in some])
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            images.append(model.encode_image(pixels, normalize=True).numpy())
            texts.append(model.encode_text(tokenizer([text for _, text, _ in some]), normalize=True).numpy())
            captions += [text for _, text, _ in some]
            groups += [group for _, _, group in some]
    return Embedded(np.concatenate(images), np.concatenate(texts), captions, groups)


def quality_table(pairs: Embedded, shuffled: float, kept: float, sums: dict[str, set[str]]) -> list[str]:
    """Markdown lines: each group by itself, then sets of groups together.

    Args:
        sums: name of a line -> the groups that it takes together.
    """
    lines = [
        f"| pairs of | n | AUC | clean before | clean in the best {kept:.0%} | clean pairs kept |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    groups = np.array(pairs.groups)
    for name, members in {**{group: {group} for group in sorted(set(pairs.groups))}, **sums}.items():
        chosen = pairs.where(np.flatnonzero(np.isin(groups, sorted(members))))
        if len(chosen.captions) < MIN_PAIRS:
            continue
        q = measure(chosen.images, chosen.texts, chosen.captions, shuffled, kept)
        lines.append(
            f"| {name} | {q.rows} | {q.auc:.3f} ± {q.auc_sd:.3f} | {q.clean_before:.3f} "
            f"| {q.clean_after:.3f} ± {q.clean_after_sd:.3f} | {q.recall:.3f} |"
        )
    return lines


def demo_pairs() -> Iterator[tuple[Image.Image, str, str]]:
    """The emoji that the demo may show, skin tones aside, with their English names."""
    for one in demo_emoji():
        if not one.has_skin_tone:
            yield Image.open(io.BytesIO(draw(one, 256))), one.name, "demo emoji"


def corpus_pairs(folder: Path) -> Iterator[tuple[Image.Image, str, str]]:
    """A corpus' pictures that were not trained on; the group is `source|lang`."""
    import polars as pl

    trained = {one.code for one in training_emoji()}
    for row in pl.read_parquet(folder / "captions.parquet").iter_rows(named=True):
        drawn = Path(row["origin"]).stem in trained
        if row["source"] != "skimage" and not (row["source"] == "openmoji" and drawn):
            with Image.open(folder / row["path"]) as image:
                yield image.convert("RGBA"), row["caption"], f"{row['source']}|{row['lang']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of docs/offline-scorer.md, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m mmdata.demo.scorer.measure", description=main.__doc__)
    parser.add_argument(
        "--corpus", type=Path, help="a folder: captions.parquet with path, caption, source, lang, origin"
    )
    parser.add_argument("--projections", type=Path, help="other projections than the shipped ones")
    options = parser.parse_args(arguments)
    scorer = build(options.projections)
    lines = ["Demo emoji, 20 % shuffled:", "", *quality_table(embed_pairs(scorer, demo_pairs()), 0.2, 0.75, {})]
    if options.corpus:
        embedded = embed_pairs(scorer, corpus_pairs(options.corpus))
        for title, part in (("source", 0), ("language", 1)):
            grouped = replace(embedded, groups=[group.split("|")[part] for group in embedded.groups])
            sums = {"all together": set(grouped.groups)}
            if title == "source":
                sums = {"unseen sources together": set(grouped.groups) - set(SEEN_SOURCES), **sums}
            lines += ["", f"The corpus by {title}, 30 % shuffled:", "", *quality_table(grouped, 0.3, 0.7, sums)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _eights(pairs: Iterable[tuple[Image.Image, str, str]]) -> Iterator[list[tuple[Image.Image, str, str]]]:
    waiting: list[tuple[Image.Image, str, str]] = []
    for pair in pairs:
        waiting.append(pair)
        if len(waiting) == 8:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


if __name__ == "__main__":
    sys.exit(main())
