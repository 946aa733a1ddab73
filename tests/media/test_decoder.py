"""The process that decodes."""

from __future__ import annotations

from pathlib import Path

from mmdata.media.decoder import MAX_ADDRESS_SPACE_BYTES
from mmdata.media.decoder_pool import DecoderPool
from tests.support.decoding import children, run


def test_a_process_has_no_more_memory_than_it_may(film):
    with DecoderPool(1, 60) as pool:
        run(pool, film)
        limits = Path(f"/proc/{children(pool)[0]}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert line.split()[3] == str(MAX_ADDRESS_SPACE_BYTES)
