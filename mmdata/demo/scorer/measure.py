"""Measure the offline scorer on pictures that it was not trained on: `python -m mmdata.demo.scorer.measure`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdata.demo.drawings import demo_emoji, draw, training_emoji
from mmdata.demo.scorer.frozen_features import on_white
from mmdata.demo.scorer.quality import measure
from mmdata.score.offline import build

MIN_PAIRS = 20  # a group of fewer pairs is not shown
PAIRS_PER_PASS = 8
SEEN_SOURCES = ("openmoji", "openclipart")  # the scorer was trained on other pictures of these sources

Pair = tuple[Image.Image, str, str]
"""A picture, its caption, and the group that it is measured in."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embedded pairs: float32 (pairs, dim) of unit length, captions, and groups."""

    images: np.ndarray
    texts: np.ndarray
    captions: list[str]
    groups: list[str]

    def take(self, positions: np.ndarray) -> Embedded:
        """The pairs at these positions."""
        captions, groups = ([names[at] for at in positions] for names in (self.captions, self.groups))
        return Embedded(self.images[positions], self.texts[positions], captions, groups)


def embed_pairs(scorer: tuple[Any, Any, Any], pairs: Iterable[Pair]) -> Embedded:
    """Embed pairs with the model, preprocessing and tokenizer of `mmdata.score.offline.build`."""
    import torch

    model, preprocess, tokenizer = scorer
    model.visual.to(memory_format=torch.channels_last)
    images, texts, captions, groups = [], [], [], []
    with torch.inference_mode():
        remaining = iter(pairs)
        while batch := list(islice(remaining, PAIRS_PER_PASS)):
            pixels = torch.stack([preprocess(on_white(image)) for image, _, _ in batch])
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            images.append(model.encode_image(pixels, normalize=True).numpy())
            texts.append(model.encode_text(tokenizer([text for _, text, _ in batch]), normalize=True).numpy())
            captions += [text for _, text, _ in batch]
            groups += [group for _, _, group in batch]
    return Embedded(np.concatenate(images), np.concatenate(texts), captions, groups)


def quality_table(pairs: Embedded, shuffled: float, kept: float, sums: dict[str, set[str]]) -> list[str]:
    """A Markdown table, as lines: each group by itself, then sets of groups together (`sums`: name -> groups).

    The shares `shuffled` and `kept` are those of `mmdata.demo.scorer.quality.measure`.
    """
    lines = [
        f"| pairs of | n | AUC | clean before | clean in the best {kept:.0%} | clean pairs kept |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    groups = np.array(pairs.groups)
    for name, members in {**{group: {group} for group in sorted(set(pairs.groups))}, **sums}.items():
        line_pairs = pairs.take(np.flatnonzero(np.isin(groups, sorted(members))))
        if len(line_pairs.captions) < MIN_PAIRS:
            continue
        q = measure(line_pairs.images, line_pairs.texts, line_pairs.captions, shuffled, kept)
        lines.append(
            f"| {name} | {q.rows} | {q.auc:.3f} ± {q.auc_sd:.3f} | {q.clean_before:.3f} "
            f"| {q.clean_after:.3f} ± {q.clean_after_sd:.3f} | {q.recall:.3f} |"
        )
    return lines


def demo_pairs() -> Iterator[Pair]:
    """The emoji that the demo may show, without skin tones, with their English names."""
    for emoji in demo_emoji():
        if not emoji.has_skin_tone:
            yield Image.open(io.BytesIO(draw(emoji, 256))), emoji.name, "demo emoji"


def corpus_pairs(folder: Path) -> Iterator[Pair]:
    """The pictures of a corpus that the scorer was not trained on; the group is `source|lang`."""
    import polars as pl

    training_codes = {emoji.code for emoji in training_emoji()}
    for row in pl.read_parquet(folder / "captions.parquet").iter_rows(named=True):
        is_training_emoji = row["source"] == "openmoji" and Path(row["origin"]).stem in training_codes
        if row["source"] != "skimage" and not is_training_emoji:
            with Image.open(folder / row["path"]) as image:
                yield image.convert("RGBA"), row["caption"], f"{row['source']}|{row['lang']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of docs/offline-scorer.md as Markdown."""
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


if __name__ == "__main__":
    sys.exit(main())
