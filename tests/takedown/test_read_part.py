"""The next build of a part finishes a killed takedown, and keeps forgotten samples out of new files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mmdata.optout.selectors import selector_of
from tests.support.published import Web, caption, pairs, picture, places_of, uid
from tests.support.takedowns import CorpusOn, copy_of, forget_samples, killed_at, two_files


def test_what_was_forgotten_does_not_come_back_in_a_new_file_or_under_another_caption(
    root: str, corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on(root)
    built.write("a", pairs(web, range(4)))
    built.build()
    forget_samples(built, selector_of("url", web.url(1)), selector_of("sha256", hashlib.sha256(picture(2)).hexdigest()))
    hits = dict(web.hits)
    built.write(
        "b", [(web.url(1), "other words"), (web.url(2, query="?quality=90"), "a copy"), *pairs(web, range(9, 11))]
    )
    release = built.build()
    assert set(built.kept(release)) == {uid(web.url(n), caption(n)) for n in (0, 3, 9, 10)}
    assert web.hits["/1.jpg"] == hits["/1.jpg"], "a URL that was forgotten was asked for"
    assert places_of(built.workspace.root / "parts", b"other words") == []


def test_what_was_forgotten_does_not_come_back_when_its_file_changes(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(4)))
    built.build()
    forget_samples(built, selector_of("url", web.url(1)))
    built.build()
    hits = dict(web.hits)
    built.write("a", [*pairs(web, range(5)), (web.url(1), "other words")])
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2, 3, 4)}
    assert web.hits["/1.jpg"] == hits["/1.jpg"]
    assert places_of(built.workspace.root / "parts", b"other words") == []


def test_a_build_finishes_what_a_killed_forget_began(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    built = corpus_on()
    two_files(built, web)
    built.build()
    for step in (3, 6, 11):
        broken = copy_of(built, tmp_path / f"killed-{step}")
        with killed_at(step), pytest.raises(OSError, match="killed"):
            forget_samples(broken, selector_of("url", web.url(3)))
        hits = dict(web.hits)
        release = broken.build()
        assert uid(web.url(3), caption(3)) not in broken.kept(release)
        assert len(broken.kept(release)) == 10
        assert dict(web.hits) == hits
        assert places_of(broken.workspace.root / "parts", caption(3).encode()) == []
