"""The table of an export: what is measured, and how it is written."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from tests.support.trained import checkpoint_of, config_of
from training.export.comparison import alternating_s, folder_bytes, tensor_bytes
from training.export.export import export


def test_the_table_says_what_was_measured(tmp_path: Path, numbered: str) -> None:
    checkpoint = checkpoint_of(tmp_path, "instruct", config_of(), numbered)
    table = export(checkpoint.parent.parent, tmp_path / "out", int8=True, prune=0.5, distill_steps=1, release=numbered)
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
    assert (table["stage"], table["step"], table["notes"]) == ("instruct", 7, [])
    names = ["checkpoint", "merged", "int8", "pruned", "distilled"]
    assert [row["name"] for row in table["rows"]] == names
    for row in table["rows"]:
        assert row["decode_tokens_per_s"] > 0
        assert row["read_tokens_per_s"] > 0
        assert row["val/loss"] > 0
    files = [path for path in (tmp_path / "out" / "pruned").rglob("*") if path.is_file() and path.suffix != ".sha256"]
    assert table["rows"][3]["bytes"] == sum(path.stat().st_size for path in files)
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:] == names
    assert "It was not trained afterwards" in "\n".join(lines)


def test_a_tensor_with_two_names_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert tensor_bytes(model) == 2 * 16 * 4
    model[1].weight = model[0].weight
    assert tensor_bytes(model) == 16 * 4


def test_variants_do_not_count_as_bytes_of_their_folder(tmp_path: Path) -> None:
    for name, size in (("model", 3), ("multimodal/encoder", 5), ("int8/model", 7)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert folder_bytes(tmp_path) == 8


def test_functions_take_turns_and_the_first_turn_is_not_timed() -> None:
    calls: list[str] = []
    seconds = alternating_s(lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b"] * 2, "one turn to warm up, and one that is timed"
    assert all(0 <= taken_s < 1 for taken_s in seconds)
