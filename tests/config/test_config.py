"""corpus.yaml: what it accepts, and how it says no."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
        ({"sources": MINIMAL["sources"] * 2}, "['web'] stands more than once"),
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


def test_object_store_paths_stay_as_they_are(tmp_path: Path) -> None:
    data = {"workspace": "s3://bucket/w", "sources": [{**MINIMAL["sources"][0], "files": "s3://bucket/in/*.parquet"}]}
    corpus = parse_corpus(data, base=tmp_path)
    assert (corpus.workspace, corpus.sources[0].files) == ("s3://bucket/w", "s3://bucket/in/*.parquet")


def test_yaml_bombs_and_non_mappings_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.yaml"
    bomb.write_text("a: &a [x, x]\nb: &b [*a, *a]\nworkspace: [*b, *b]\n")
    with pytest.raises(UserError, match="aliases"):
        load_corpus(bomb)
    bomb.write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_corpus(bomb)
    bomb.write_text("x" * 1_000_001)
    with pytest.raises(UserError, match="no corpus"):
        load_corpus(bomb)
    with pytest.raises(UserError, match="mmdata init"):
        load_corpus(tmp_path / "absent.yaml")


def test_a_checkpoint_beside_the_file_is_found_and_a_tag_stays_a_tag(tmp_path: Path) -> None:
    (tmp_path / "clip.safetensors").write_bytes(b"")
    beside = parse_corpus({**MINIMAL, "score": {"model": "ViT-B-32", "pretrained": "clip.safetensors"}}, base=tmp_path)
    assert beside.score.pretrained == str(tmp_path / "clip.safetensors")
    assert parse_corpus(MINIMAL, base=tmp_path).score.pretrained == "laion2b_s34b_b79k"


def test_training_is_tiny_unless_told_otherwise_and_a_train_toml_names_its_own_preset(tmp_path: Path) -> None:
    assert parse_corpus(MINIMAL).train.preset == "tiny"
    told = parse_corpus({**MINIMAL, "train": {"config": "train.toml", "output": "models"}}, base=tmp_path).train
    assert (told.preset, told.config, told.output) == (None, str(tmp_path / "train.toml"), str(tmp_path / "models"))
    assert parse_corpus({**MINIMAL, "train": {"config": "t.toml", "preset": "l14-1b"}}).train.preset == "l14-1b"
    with pytest.raises(UserError, match=r"key=value, such as align\.lr=0\.001"):
        parse_corpus({**MINIMAL, "train": {"set": ["align.lr"]}})


@pytest.mark.parametrize(
    ("rule", "remedy"), [({"max_faces": 1}, "privacy.count_faces"), ({"min_audio_score": 0.1}, "score.audio_model")]
)
def test_a_rule_without_its_measure_is_refused(rule: dict[str, Any], remedy: str) -> None:
    data = {"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": "x"}], "select": {"filter": rule}}
    with pytest.raises(UserError, match=remedy):
        parse_corpus(data)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "video", "columns": {"url": "u"}}, "needs columns"),
        ({"kind": "text", "columns": {"caption": "t", "url": "u"}}, "not known"),
        ({"kind": "video", "columns": {"url": "u", "caption": "t", "start_s": "a"}}, "go together"),
        ({"kind": "howto100m"}, "needs `captions`"),
        ({"kind": "laion", "captions": "c.json"}, "takes no `captions`"),
        ({"kind": "howto100m", "captions": "c.json", "fetch_from": "https://m/x.mp4"}, "no {video_id}"),
    ],
)
def test_a_source_that_cannot_be_read_says_what_it_lacks(source: dict[str, Any], said: str) -> None:
    data = {"workspace": "w", "sources": [{"name": "a", "files": "x", **source}]}
    with pytest.raises(UserError, match=re.escape(said)):
        parse_corpus(data)


def test_parts_of_videos_are_small() -> None:
    source = {"name": "a", "kind": "howto100m", "files": "x", "captions": "c.json"}
    found = parse_corpus({"workspace": "w", "sources": [source]}).sources[0]
    assert (found.part_rows, found.slice_rows) == (2000, 200)
    assert parse_corpus({"workspace": "w", "sources": [{**source, "slice_rows": 7}]}).sources[0].slice_rows == 7
