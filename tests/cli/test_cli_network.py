"""`mmdata network` trains, and says whether the network may decide."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.cli.conftest import Mmdata
from tests.support.coloured_pairs import TINY, coloured_release, tiny_scorer


def test_the_command_trains_and_prints_the_verdict(mmdata: Mmdata, tmp_path: Path) -> None:
    score = tiny_scorer(tmp_path / "scorer")
    seed = coloured_release(tmp_path / "seed", pairs=260)
    corpus = {
        "workspace": str(tmp_path / "workspace"),
        "sources": [{"name": "web", "kind": "laion", "files": "*.parquet"}],
        "score": {"model": score.model, "pretrained": None, "device": "cpu"},
    }
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump(corpus))
    settings = [part for setting in [*TINY, "align.steps=3"] for part in ("--set", setting)]
    done = mmdata("network", seed, tmp_path / "dfn", "-c", config, *settings)
    assert done.returncode == 0, done.stderr
    assert "52 held-out pairs" in done.stdout
    beats = json.loads((tmp_path / "dfn" / "align" / "scorer" / "network.json").read_text())["beats_scorer"]
    assert ("it beats the scorer" in done.stdout) == beats
