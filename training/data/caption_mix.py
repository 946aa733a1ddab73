"""Which samples are read with their generated caption in place of their text: a draw from (seed, epoch, sample).

The draw is part of the data order: it is the same at any world size and worker count, and after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.errors import UserError
from mmdata.samples import hash_words, unit_interval
from training.data.sample_index import TrainingRelease


@dataclass(frozen=True, slots=True)
class CaptionMix:
    """The generated captions of a split, and how often they are read.

    Args:
        tokens: estimated tokens of the generated caption of each sample, uint32; 0: it has none beside its text.
        rate: share of the samples with both, in [0, 1].
    """

    tokens: np.ndarray
    rate: float
    seed: int

    def draws_generated(self, samples: np.ndarray, rows: np.ndarray, passes: np.ndarray | int) -> np.ndarray:
        """Whether the generated caption is read, bool N.

        Args:
            samples: rows of `sample_index.SAMPLE`, of the whole split.
            rows: int64 N, numbers of the samples that are asked about.
            passes: int64 N, or one number for all; the pass over the samples in which each of them is read.
        """
        passes = np.broadcast_to(passes, rows.shape)
        is_drawn = np.zeros(rows.shape, bool)
        for number in np.unique(passes):
            at = np.flatnonzero(passes == number)
            chosen = samples[rows[at]]
            copies = chosen["copy"].astype(np.uint64)  # each copy of a sample has a draw of its own
            bits = hash_words(chosen["high"] ^ copies, chosen["low"], self.seed, f"generated caption {number}")
            is_drawn[at] = unit_interval(bits) < self.rate
        return is_drawn & (self.tokens[rows] > 0)


def caption_mix(release: TrainingRelease, split: str, rate: float, seed: int) -> CaptionMix | None:
    """The mix of a split; None where nothing is mixed: at rate 0, and of held-out samples.

    Raises UserError: the release has no generated captions.
    """
    if rate == 0 or split != "train":
        return None
    tokens = release.generated_tokens(split)
    if tokens is None:
        raise UserError(
            f"data.generated_captions: release {release.id} has no generated captions. Remedy: set recaption.model in "
            "corpus.yaml and build it again, or leave data.generated_captions at 0."
        )
    return CaptionMix(tokens, rate, seed)
