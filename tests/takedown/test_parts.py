"""The opt-out in the tables of a part: what is emptied, what stays fresh, and that it may run again."""

from __future__ import annotations

from mmdata.download.stage import fetch_part
from mmdata.optout.hashes import opt_out_of
from mmdata.optout.state import OPT_OUT
from mmdata.score.stage import score_part
from mmdata.storage.tables import read_table
from mmdata.takedown.parts import leave_out, left_out, pardon, part_names, slice_names
from tests.support.published import Web, caption, pairs, uid
from tests.support.takedowns import SELECTORS, CorpusOn

PART = "web-000000"


def test_left_out_samples_lose_their_content_and_nothing_is_fetched_or_scored_again(
    corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(4)))
    built.build()
    workspace, hits, scored = built.workspace, dict(web.hits), list(built.scored)
    assert part_names(workspace) == [PART]
    opt_out = opt_out_of([SELECTORS["url"][0](web), SELECTORS["sha256"][0](web)])
    by_url, by_content = uid(web.url(3), caption(3)), uid(web.url(2), caption(2))
    left = left_out(workspace, PART, opt_out)
    assert (left.uids, left.by_content) == ({by_url}, {by_content})
    leave_out(built.corpus, workspace, PART, opt_out)
    names = slice_names(workspace, PART, "rows")
    rows = {row["uid"]: row for name in names for row in read_table(workspace.table(PART, "rows", name)).to_pylist()}
    media = {row["uid"]: row for name in names for row in read_table(workspace.table(PART, "media", name)).to_pylist()}
    assert (rows[by_url]["url"], rows[by_url]["caption"], rows[by_url]["problem"]) == (None, None, OPT_OUT)
    assert rows[by_content]["caption"] == caption(2)
    assert [media[key]["error"] for key in (by_url, by_content)] == [OPT_OUT, OPT_OUT]
    assert (media[by_url]["sha256"], media[by_content]["sha256"] is None) == (None, False)
    stamps = {stage: workspace.part_stamp(PART, stage) for stage in ("media", "features")}
    leave_out(built.corpus, workspace, PART, opt_out)
    assert stamps == {stage: workspace.part_stamp(PART, stage) for stage in ("media", "features")}
    for work in (fetch_part, score_part):
        assert work(built.corpus, workspace, PART).slices_done == 0
    assert (dict(web.hits), built.scored) == (hits, scored)
    pardon(workspace, PART, opt_out)
    assert workspace.part_stamp(PART, "media") is not None, "the entry is still there"
    pardon(workspace, PART, opt_out_of([]))
    assert workspace.part_stamp(PART, "media") is None, "the file is fetched again"
