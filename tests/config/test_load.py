"""corpus.yaml: what it accepts, and how it says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.config.load import load_corpus, parse_corpus
from mmdata.errors import UserError

MINIMAL = {"workspace": "w", "sources": [{"name": "web", "kind": "laion", "files": "inbox/*.parquet"}]}


def test_the_contract_of_the_readme_loads(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text(
        """
workspace: ./workspace
seed: 0
sources:
  - {name: web, kind: laion, files: inbox/*.parquet, part_rows: 200000, slice_rows: 10000}
download:
  {image_size: 256, timeout_s: 10, deadline_s: 60, max_bytes: 20000000, retries: 2, threads: 32, allow_hosts: []}
score: {model: ViT-B-32, pretrained: laion2b_s34b_b79k, device: auto, batch_size: 256}
select:
  filter: {min_clip_score: 0.28}
  dedup: {phash_bits: 4, semantic_eps: 0.05}
  balance: {max_ratio: 3.0, by: samples, concepts: null, concept_cap: 20000}
  oversample: {threshold: 0.01, max_repeats: 4}
shards: {shard_mb: 256, validation_fraction: 0.01}
instruct: {tasks: [caption, match, reference_image], languages: [en, zh], formats: [record, llava, chat]}
"""
    )
    corpus = load_corpus(tmp_path / "corpus.yaml")
    assert corpus.select.filter.min_clip_score == 0.28
    assert corpus.workspace == str(tmp_path / "workspace")
    assert corpus.sources[0].files == str(tmp_path / "inbox/*.parquet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sorces": []}, "unknown key `sorces`: did you mean `sources`?"),
        ({"download": {"timeout": 3}}, "unknown key `download.timeout`: did you mean `timeout_s`?"),
        ({"select": {"filter": {"min_clip": 0.3}}}, "did you mean `min_clip_score`?"),
        ({"score": {"batch_size": 0}}, "`score.batch_size`: Input should be greater than or equal to 1, not 0"),
        ({"select": {"filter": {"min_clip_score": 0.1, "top_fraction": 0.5}}}, "not both"),
        ({"select": {"balance": {"mix": {"text": 0.5}}}}, "sum to 1, not 0.5"),
        ({"sources": MINIMAL["sources"] * 2}, "['web'] appears more than once"),
        ({"sources": [{"name": "a", "kind": "pairs", "files": "x"}]}, "needs columns"),
        ({"sources": []}, "`sources`"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(change: dict, said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_corpus({**MINIMAL, **change}, name="corpus.yaml")
    assert said in str(raised.value)
    assert str(raised.value).startswith("corpus.yaml: ")


def test_demo_scorer_needs_no_pretrained_tag() -> None:
    assert parse_corpus({**MINIMAL, "score": {"model": "demo"}}).score.pretrained is None
    assert parse_corpus(MINIMAL).score.pretrained == "laion2b_s34b_b79k"


def test_yaml_bombs_and_non_mappings_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.yaml"
    bomb.write_text("a: &a [x, x]\nb: &b [*a, *a]\nworkspace: [*b, *b]\n")
    with pytest.raises(UserError, match="aliases"):
        load_corpus(bomb)
    bomb.write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_corpus(bomb)
    bomb.write_text("x" * 1_000_001)
    with pytest.raises(UserError, match="too many for a corpus"):
        load_corpus(bomb)
    with pytest.raises(UserError, match="mmdata init"):
        load_corpus(tmp_path / "absent.yaml")
