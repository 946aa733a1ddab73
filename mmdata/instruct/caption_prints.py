"""Short hashes of captions, by which pairs of captions are compared without reading them again."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MASK_WORDS = 4  # 4 x 64 bits
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


@dataclass(frozen=True, slots=True)
class CaptionPrints:
    """Hashes of n captions.

    Args:
        identity: of the words in order: uint64 (n,); 0 for a caption without words.
        words: a Bloom filter of the set of words: uint64 (n, 4).
    """

    identity: np.ndarray
    words: np.ndarray


def caption_prints(captions: Iterable[str | None], count: int) -> CaptionPrints:
    """Hash captions. Case, punctuation and spacing are ignored; a CJK character counts as a word."""
    identity = np.zeros(count, np.uint64)
    words = np.zeros((count, MASK_WORDS), np.uint64)
    for number, caption in enumerate(captions):
        caption_words = _WORD.findall((caption or "").casefold())
        if not caption_words:
            continue
        digest = hashlib.blake2b(" ".join(caption_words).encode(), digest_size=8).digest()
        identity[number] = int.from_bytes(digest, "little") or 1
        for word in set(caption_words):
            bit = zlib.crc32(word.encode()) % (64 * MASK_WORDS)
            words[number, bit >> 6] |= np.uint64(1 << (bit & 63))
    return CaptionPrints(identity, words)


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of common words (Jaccard index), estimated from the Bloom filters (…, 4): float64 of their common shape."""
    shared = np.bitwise_count(ours & theirs).sum(axis=-1, dtype=np.int64)
    either = np.bitwise_count(ours | theirs).sum(axis=-1, dtype=np.int64)
    return shared / np.maximum(either, 1)
