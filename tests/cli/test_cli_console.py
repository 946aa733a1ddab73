"""What the commands print of a stage."""

from __future__ import annotations

import pytest

from mmdata.cli.console import console, facts, summary_line, table
from mmdata.stage import StageReport

COUNTS = {
    "shards": 11,
    "shards_reused": 0,
    "shards_new": 11,
    "samples": 40,
    "samples_new": 40,
    "bytes": 5,
    "bytes_new": 5,
}


def test_a_stage_shows_its_main_figures_and_the_commonest_reasons() -> None:
    reasons = {"http_404": 2, "timeout": 9, "dns": 1, "bomb": 1, "tls": 1}
    report = StageReport("media", "web-000000", {"rows": 40, "success": 1234, "refused": 0}, reasons, slices_reused=2)
    assert summary_line(report) == (
        "40 rows, 1,234 success, 2 slices reused (timeout 9, http_404 2, bomb 1, dns 1, 1 more)"
    )


def test_shards_that_were_written_are_called_new() -> None:
    assert "11 shards new" in summary_line(StageReport("shards", counts=COUNTS, slices_done=11))


def test_shards_that_were_all_there_are_unchanged_and_not_called_new() -> None:
    line = summary_line(StageReport("shards", counts=COUNTS, slices_reused=11))
    assert line == "unchanged: 11 shards, 40 samples, 5 bytes"


def test_an_evaluation_is_told_by_its_main_figures() -> None:
    numbers = {"joint/loss": 1.117, "joint/loss_with_other_pictures": 1.185, "align/image_to_text/chance@1": 0.0017}
    line = summary_line(StageReport("evaluation", numbers=numbers, slices_done=1))
    assert line == "1.117 joint/loss, 1.185 joint/loss with other pictures"


def test_no_text_becomes_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    out = console()
    reason = "filter:top:s_clip_loss"
    out.print(reason)
    out.print(reason, markup=False)
    out.print(table(reason, (reason,), [(reason,)]))
    out.print(facts(reason, {reason: 1}))
    assert capsys.readouterr().out.count(reason) == 7
