"""s-CLIPLoss (Wang et al. 2024, arXiv 2405.19547), with a fixed bank of pairs in place of random batches."""

from __future__ import annotations

import numpy as np

from mmdata.fingerprint import fingerprint
from mmdata.select.scores.bank import Bank
from mmdata.select.scores.exact import cosines, pair_cosines, row_sums
from mmdata.select.scores.vector_score import BLOCK_ROWS

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
        self._members = {pair.tobytes() for pair in np.hstack([bank.pictures, bank.texts])}

    def score(self, pictures: np.ndarray, texts: np.ndarray | None) -> np.ndarray:
        """See `VectorScore.score`."""
        assert texts is not None
        scores = np.empty(len(pictures), np.float32)
        for start in range(0, len(pictures), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            scores[block] = self._score_block(pictures[block], texts[block])
        return scores

    def _score_block(self, pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
        is_member = np.array([pair.tobytes() in self._members for pair in np.hstack([pictures, texts])], bool)
        wide_pictures, wide_texts = pictures.astype(np.float64), texts.astype(np.float64)
        own = pair_cosines(wide_pictures, wide_texts)
        fit_of_picture = self._log_sum(cosines(wide_pictures, self._texts), own, is_member)
        fit_of_text = self._log_sum(cosines(wide_texts, self._pictures), own, is_member)
        return np.asarray(own - self._temperature / 2 * (fit_of_picture + fit_of_text), np.float32)

    def _log_sum(self, products: np.ndarray, own: np.ndarray, is_member: np.ndarray) -> np.ndarray:
        """log sum_j exp(product / tau) over the bank and the pair itself, (n,). Overwrites `products`."""
        highest = np.maximum(products.max(axis=1), own)
        products -= highest[:, None]
        products /= self._temperature
        np.exp(products, out=products)
        added = np.where(is_member, 0.0, np.exp((own - highest) / self._temperature))
        return np.asarray(highest / self._temperature + np.log(row_sums(products) + added))
