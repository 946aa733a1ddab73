"""s-CLIPLoss (Wang et al. 2024, arXiv 2405.19547), with a fixed bank of pairs in place of random batches."""

from __future__ import annotations

import numpy as np

from mmdata.fingerprint import fingerprint
from mmdata.select.scores.bank import Bank
from mmdata.select.scores.exact import cosines, pair_cosines, row_sums
from mmdata.select.scores.vector_score import blocks

_VERSION = 1


class SurrogateClipLoss:
    """The cosine of a pair, less how well its picture and its caption fit those of other pairs.

        s - tau/2 [log sum_j exp(v.t_j / tau) + log sum_j exp(v_j.t / tau)],  s = v.t

    The paper sums over the batch that a pair is in, and takes the mean over random batches. Here the sums run over the
    pairs of the bank and the pair itself, which counts once if the bank holds it. The score is at most 0.

    Args:
        bank: the pairs (v_j, t_j).
        temperature: tau.
    """

    reads_texts = True

    def __init__(self, bank: Bank, temperature: float) -> None:
        self.fingerprint = fingerprint("s-clip-loss", _VERSION, temperature, bank.digest)
        self._temperature = temperature
        self._pictures = bank.pictures.T.astype(np.float64)
        self._texts = bank.texts.T.astype(np.float64)
        pairs = np.hstack([bank.pictures, bank.texts])
        self._members = {pair.tobytes(): number for number, pair in enumerate(pairs)}

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """See `VectorScore.score`."""
        assert texts is not None
        scores = np.empty(len(pictures), np.float32)
        for block in blocks(len(pictures), self._pictures.shape[1]):
            scores[block] = self._score_block(pictures[block], texts[block])
        return scores

    def _score_block(self, pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
        numbers = [self._members.get(pair.tobytes(), -1) for pair in np.hstack([pictures, texts])]
        member = np.flatnonzero(np.array(numbers) >= 0), np.array([number for number in numbers if number >= 0], int)
        wide_pictures, wide_texts = pictures.astype(np.float64), texts.astype(np.float64)
        own = pair_cosines(wide_pictures, wide_texts)
        loss_of_picture = self._loss(cosines(wide_pictures, self._texts), own, member)
        loss_of_text = self._loss(cosines(wide_texts, self._pictures), own, member)
        return np.asarray(-self._temperature / 2 * (loss_of_picture + loss_of_text), np.float32)

    def _loss(self, products: np.ndarray, own: np.ndarray, member: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """log sum_j exp((product_j - own) / tau) over the bank and the pair itself, (n,). Overwrites `products`.

        It is the formula with s taken into the logarithm, which keeps the digits of pairs that nothing else fits.

        Args:
            own: the pairs' own products.
            member: rows whose pair is in the bank, and its number there; the bank's copy is left out of the sum.
        """
        products[member] = -np.inf
        products -= own[:, None]
        highest = products.max(axis=1).clip(0.0)
        products -= highest[:, None]
        products /= self._temperature
        np.exp(products, out=products)
        highest /= self._temperature
        return np.asarray(highest + np.log1p(row_sums(products) + np.expm1(-highest)))
