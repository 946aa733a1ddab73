"""Pictures of a slice are embedded once each and scored for every row."""

from __future__ import annotations

import pytest

from mmdata.score.scorer import ClipScorer
from mmdata.score.stage import score_part
from tests.support.scoring import PART, PartMaker, Sample, count_embedded, encode, photo


def test_rows_that_share_bytes_are_embedded_once_and_scored_each(
    maker: PartMaker, scorer: ClipScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [Sample(f"caption {n}", same_as=0) for n in range(3)]
    twin = Sample("caption 0", encode(photo(2)), url="https://e.org/twin.jpg")
    maker.write([[Sample("first", encode(photo(1))), *shared, twin]])
    embedded = count_embedded(monkeypatch)
    report = score_part(maker.corpus, maker.workspace, PART)
    assert report.counts["pictures"] == 2 and report.counts["scored"] == 5
    assert embedded == {"images": 2, "texts": 4}  # "caption 0" stands twice
    rows = [maker.features()[s.uid(n + 1)] for n, s in enumerate(shared)]
    assert len({tuple(row["embedding"]) for row in rows}) == 1
    assert len({row["clip_score"] for row in rows}) == 3
