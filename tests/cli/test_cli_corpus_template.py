"""The corpus.yaml that `mmdata init` writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from mmdata.cli.corpus_template import corpus_template
from mmdata.config import SOURCE_KINDS, Corpus, Source
from mmdata.config.load import load_corpus


def test_it_loads_as_it_is_and_says_what_the_defaults_say(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text(corpus_template())
    written = load_corpus(tmp_path / "corpus.yaml")
    plain = Corpus(workspace=written.workspace, sources=written.sources)
    assert written.select.filter.min_clip_score == 0.28
    ours, theirs = written.model_dump(), plain.model_dump()
    ours["select"]["filter"]["min_clip_score"] = None
    assert ours == theirs


def test_every_key_is_there_with_its_meaning() -> None:
    text = corpus_template()
    for name, description in _keys(Corpus):
        assert re.search(rf"^\s*(# |- )?{name}:", text, re.MULTILINE), name
        assert description in text


def test_every_key_that_is_off_can_be_turned_on(tmp_path: Path) -> None:
    text = re.sub(r"# (\w+: null)", r"\1", corpus_template())
    (tmp_path / "corpus.yaml").write_text(text)
    assert load_corpus(tmp_path / "corpus.yaml").select.filter.languages is None


def test_the_sources_of_other_kinds_can_be_turned_on_and_every_kind_is_there(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text(re.sub(r"# (- \{name: )", r"\1", corpus_template()))
    sources = load_corpus(tmp_path / "corpus.yaml").sources
    assert {source.kind for source in sources} == set(get_args(SOURCE_KINDS))
    assert all(str(tmp_path) in source.files for source in sources)
    assert str(tmp_path / "inbox/captions/{video_id}.vtt") in [source.captions for source in sources]


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind)
        else:
            yield name, str(field.description)
            if name == "sources":
                yield from _keys(Source)
