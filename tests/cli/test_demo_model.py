"""What the demo's models must reach on its own release: they see, and their captions name what is to be seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.demo.demo_folder import make_demo
from mmdata.demo.named_kinds import named_kinds
from mmdata.demo.web_server import DemoServer
from mmdata.stage import StageReport
from pipelines.headless import build, train

ROWS = 3000  # the default of `mmdata demo`
LEAST_RECALL, LEAST_NAMED, LEAST_GAP = 15, 0.5, 0.03
"""Times chance of Recall@10, both ways; share of captions that name the kind; loss that wrong pictures add, in nats."""


def too_low(evaluation: StageReport, truth: Path) -> dict[str, float]:
    """The measures of an evaluation that miss what the demo must reach; empty if none does."""
    numbers, joint = evaluation.numbers, Path(evaluation.paths["models"]) / "joint"
    kinds = named_kinds(truth, json.loads((joint / "metrics.json").read_text())["answers"])
    assert kinds is not None and kinds.pictures > 300
    reached = {
        way: (numbers[f"align/{way}/recall@10"] / numbers[f"align/{way}/chance@10"], LEAST_RECALL)
        for way in ("image_to_text", "text_to_image")
    }
    reached["kinds named"] = (kinds.right, LEAST_NAMED)
    reached["gain of the right picture"] = (kinds.right - kinds.with_other_pictures, 0.15)
    reached["loss gap"] = (numbers["joint/loss_with_other_pictures"] - numbers["joint/loss"], LEAST_GAP)
    return {name: value for name, (value, least) in reached.items() if value < least}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_makes_a_model_that_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = make_demo(tmp_path / "demo", ROWS)
    monkeypatch.setenv("MMDATA_CONFIG", str(demo.config_path))
    with DemoServer(demo.site, port=demo.port):
        assert build(demo.config_path).release_id is not None
    *_, evaluation = train(demo.config_path)
    assert too_low(evaluation, demo.truth_path) == {}
    assert 'id="captions"' in Path(evaluation.paths["report"]).read_text()
