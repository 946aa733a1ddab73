"""How well a scorer tells matched captions from shuffled ones: AUC, and what keeping the best-scored share is worth."""

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

from mmdata.demo.pictures import demo_emoji, draw, training_emoji
from mmdata.score.offline import build
from mmdata.score.offline.features import flatten

MIN_PAIRS = 20  # fewer say nothing
SEEN_SOURCES = ("openmoji", "openclipart")  # other pictures of these were trained on


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over shuffles, with their standard deviations.

    Args:
        rows: pairs measured.
        auc: chance that a matched pair scores above a shuffled one; 0.5 is guessing.
        clean_before: share of pairs whose caption is theirs after the shuffle.
        clean_after: the same among those kept.
        recall: share of the clean pairs that is kept.
    """

    rows: int
    auc: float
    auc_sd: float
    clean_before: float
    clean_after: float
    clean_after_sd: float
    recall: float


def measure(
    images_ND: np.ndarray,
    texts_ND: np.ndarray,
    captions: list[str],
    shuffled: float = 0.3,
    kept: float = 0.7,
    shuffles: int = 10,
    seed: int = 0,
) -> Quality:
    """Shuffle the captions of some rows among themselves, score all, keep the best share, and count.

    A shuffled row that was given the very same text counts as clean, and is no negative for the AUC, which compares
    all matched pairs with as many shuffled ones.

    Args:
        images_ND, texts_ND: unit length, float32 (rows, dim), row i of both is pair i.
        captions: the texts.
        shuffled, kept: shares of the rows.
        shuffles: repetitions with other draws.
    """
    rng = np.random.default_rng(seed)
    rows = len(captions)
    names = np.unique(np.array(captions, dtype=str), return_inverse=True)[1]
    cosines = images_ND @ texts_ND.T
    every = np.arange(rows)
    aucs, before, after, recalls = [], [], [], []
    for _ in range(shuffles):
        other = rng.permutation(rows)
        wrong = names[other] != names
        aucs.append(auc(cosines[every, every], cosines[every, other][wrong]))
        given = every.copy()
        chosen = rng.choice(rows, round(shuffled * rows), replace=False)
        given[chosen] = rng.permutation(chosen)
        clean = names[given] == names
        best = np.argsort(-cosines[every, given], kind="stable")[: round(kept * rows)]
        before.append(clean.mean())
        after.append(clean[best].mean())
        recalls.append(clean[best].sum() / max(1, clean.sum()))
    return Quality(
        rows=rows,
        auc=float(np.mean(aucs)),
        auc_sd=float(np.std(aucs)),
        clean_before=float(np.mean(before)),
        clean_after=float(np.mean(after)),
        clean_after_sd=float(np.std(after)),
        recall=float(np.mean(recalls)),
    )


def auc(matched: np.ndarray, shuffled: np.ndarray) -> float:
    """Area under the ROC curve: P(matched > shuffled) + P(tie) / 2. NaN if either is empty."""
    if not len(matched) or not len(shuffled):
        return float("nan")
    ranked = np.sort(shuffled)
    below = np.searchsorted(ranked, matched, side="left")
    ties = np.searchsorted(ranked, matched, side="right") - below
    return float((below + ties / 2).mean() / len(ranked))


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
    parser = argparse.ArgumentParser(prog="python -m mmdata.score.offline.evaluate", description=main.__doc__)
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
