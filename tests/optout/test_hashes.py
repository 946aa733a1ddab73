"""Tables of hashes: a damaged or swapped one stops the build."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import DataError
from mmdata.optout.hashes import load_opt_out
from mmdata.optout.selectors import selector_of
from tests.support.published import Web, pairs
from tests.support.takedowns import CorpusOn, forget_samples


def test_a_table_of_hashes_that_was_damaged_stops_the_build(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text(web.url(1))
    built = corpus_on(optout=["out.txt"])
    built.write("a", pairs(web, range(3)))
    built.build()
    next((built.workspace.root / "takedown").glob("standing-*.parquet")).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_opt_out(built.workspace)


def test_hashes_that_were_swapped_are_found_out(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    for number in (8, 9):
        forget_samples(built, selector_of("url", web.url(number)))
    folder = built.workspace.root / "takedown" / "forgotten"
    (folder / "000001.parquet").write_bytes((folder / "000003.parquet").read_bytes())
    with pytest.raises(DataError, match=r"000001\.parquet: is not the table of hashes that was signed off"):
        load_opt_out(built.workspace)
