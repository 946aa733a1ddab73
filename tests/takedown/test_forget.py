"""Forgetting: what goes, what stays, and that a new source, a kill or an old release brings nothing back."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mmdata.download.stage import fetch_part
from mmdata.engine.freshness import plan_parts
from mmdata.errors import DataError, UserError
from mmdata.inspect.story import explain
from mmdata.optout.forget_log import read_log
from mmdata.optout.selectors import selector_of
from mmdata.publish.verify import verify_release
from mmdata.score.stage import score_part
from mmdata.takedown.forget import finish, is_forgotten, purge, still_held
from mmdata.workspace.lease import leased
from tests.support.published import Published, Web, caption, pairs, places_of, stored, uid
from tests.support.takedowns import SELECTORS, CorpusOn, copy_of, forget_samples, killed_at, two_files


@pytest.mark.parametrize(
    ("kind", "root"),
    [("sha256", "disk"), *[pytest.param(kind, "disk", marks=pytest.mark.slow) for kind in ("url", "domain", "uid")],
     pytest.param("domain", "s3", marks=pytest.mark.slow)],
    indirect=["root"],
)  # fmt: skip
def test_what_is_forgotten_leaves_nothing_and_the_rest_is_neither_fetched_nor_scored_again(
    kind: str, root: str, corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on(root)
    two_files(built, web)
    first = built.build()
    hits, scored, before = dict(web.hits), list(built.scored), built.kept(first)
    urls = {number: web.url(number, "127.0.0.2" if number > 6 else "127.0.0.1") for number in range(11)}
    uids = {number: uid(url, caption(number)) for number, url in urls.items()}
    selectors, gone = SELECTORS[kind]
    part = "web-000001" if min(gone) > 6 else "web-000000"
    media = {number: stored(built, part, uids[number]) for number in gone}
    forget_samples(built, selectors(web))
    assert [plan.why for plan in plan_parts(built.corpus, built.workspace) if plan.stale] == []
    assert all(places_of(built.workspace.root / "parts", bytes_) == [] for bytes_ in media.values())
    for work in (fetch_part, score_part):
        assert work(built.corpus, built.workspace, part).slices_done == 0, "a slice is stale"
    assert still_held(built.workspace) == {first: "latest"}
    second = built.build()
    assert (dict(web.hits), built.scored) == (hits, scored)
    assert set(before) - set(built.kept(second)) == {uids[number] for number in gone}
    assert {uids[number]: "opt_out" for number in gone} == built.reasons(second)
    assert built.copies(second) == 11
    assert purge(built.corpus, built.workspace).releases == (first,)
    assert still_held(built.workspace) == {}
    verify_release(built.workspace.release_dir(second))
    for number in gone:
        address = urls[number].partition("://")[2]
        for needle in (caption(number).encode(), address.encode(), media[number]):
            assert places_of(built.workspace.root, needle) == []
    assert places_of(built.workspace.root, caption(0).encode()), "the search finds what is there"


def test_shards_without_what_was_forgotten_are_used_again(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on(shards={"shard_mb": 0.005, "validation_fraction": 0.1})
    two_files(built, web)
    built.build()
    names = {path.name for path in built.workspace.shards_dir.glob("*.tar")}
    forget_samples(built, SELECTORS["uid"][0](web))
    second = built.build()
    manifest = json.loads((built.workspace.release_dir(second) / "manifest.json").read_text())
    fresh = {shard["name"] for shard in manifest["shards"]} - names
    assert len(fresh) <= 1 < len(manifest["shards"])


@pytest.mark.slow
def test_killed_at_any_step_it_is_finished_by_the_next_run(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    built = corpus_on()
    two_files(built, web)
    built.build()
    selectors = [selector_of("url", web.url(3)), selector_of("domain", "127.0.0.2")]
    needles = [caption(3).encode(), stored(built, "web-000000", uid(web.url(3), caption(3)))]
    whole = copy_of(built, tmp_path / "whole")
    forget_samples(whole, *selectors)
    wanted = _digests(whole)
    hits = dict(web.hits)
    step = 0
    while True:
        broken = copy_of(built, tmp_path / f"killed-{step}")
        with killed_at(step) as killer, suppress(OSError):
            forget_samples(broken, *selectors)
        if not killer["killed"]:
            break
        begun = [entry.what for entry in read_log(broken.workspace)]
        if begun:
            assert finish(broken.corpus, broken.workspace, by="Ada") == ([1] if begun == ["forget"] else [])
        else:
            forget_samples(broken, *selectors)
        assert _digests(broken) == wanted, f"killed at step {step}"
        for needle in needles:
            assert places_of(broken.workspace.root / "parts", needle) == []
        assert [plan.why for plan in plan_parts(broken.corpus, broken.workspace) if plan.stale] == []
        shutil.rmtree(broken.root)
        step += 1
    assert step > 20
    assert dict(web.hits) == hits


def test_a_release_is_not_made_of_parts_that_still_hold_it(corpus_on: CorpusOn, web: Web) -> None:
    from mmdata.select.stage import select_samples

    built = corpus_on()
    built.write("a", pairs(web, range(4)))
    built.build()
    with killed_at(3), pytest.raises(OSError, match="killed"):
        forget_samples(built, selector_of("url", web.url(3)))
    assert read_log(built.workspace)
    with pytest.raises(DataError, match="the opt-out has changed"):
        select_samples(built.corpus, built.workspace)


def test_explain_tells_that_and_when_and_no_url(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    built.build()
    forget_samples(built, selector_of("url", web.url(1)))
    story = explain(built.corpus, built.workspace, uid(web.url(1), caption(1)))
    assert story.verdict.startswith(f"forgotten at {read_log(built.workspace)[0].at}, entry 1")
    assert web.url(1).partition("://")[2] not in repr(story)
    assert caption(1) not in repr(story)


def test_a_part_that_is_being_built_is_not_touched(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on(engine={"wait_s": 0})
    built.write("a", pairs(web, range(3)))
    built.build()
    with leased(built.workspace, "part-web-000000", "media"), pytest.raises(UserError, match="is held by media"):
        forget_samples(built, selector_of("url", web.url(1)))
    assert finish(built.corpus, built.workspace, by="Ada") == [1]
    assert is_forgotten(built.workspace, [selector_of("url", web.url(1))])


def test_what_is_not_there_is_kept_out_all_the_same(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    forget_samples(built, selector_of("url", web.url(1)))
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2)}
    assert "/1.jpg" not in web.hits


def _digests(built: Published) -> dict[str, Any]:
    """What every stamp says of a part, and which tars lie there."""
    digests: dict[str, Any] = {}
    for part in built.parts():
        folder = built.workspace.part_dir(part)
        for path in sorted(folder.rglob("*.json"), key=str):
            digests[str(path.relative_to(folder.parent))] = json.loads(path.read_text())
        digests[part] = sorted(path.name for path in folder.rglob("*.tar"))
    return digests
