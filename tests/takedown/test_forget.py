"""Forgetting: what goes, what stays, and that a new source, a kill or an old release brings nothing back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import mmdata.storage.atomic
import mmdata.storage.tables
import mmdata.workspace.media_tar
from mmdata.download.stage import fetch_part
from mmdata.engine.freshness import plan_parts
from mmdata.errors import DataError, UserError
from mmdata.inspect.story import explain
from mmdata.optout.forget_log import append, log_path, read_log
from mmdata.optout.hashes import load_opt_out
from mmdata.optout.selectors import Selector, selector_of
from mmdata.publish.verify import verify_release
from mmdata.score.stage import score_part
from mmdata.takedown.find import find
from mmdata.takedown.forget import finish, forget, is_forgotten, purge, still_held
from mmdata.takedown.near import find_near, hits_of
from mmdata.workspace.lease import leased
from tests.support.published import Published, Web, caption, pairs, picture, places_of, stored, uid

CorpusOn = Callable[..., Published]


def taken(built: Published, *asked: Selector, near: bool = False) -> None:
    found = find(built.workspace, asked)
    close = hits_of(find_near(built.workspace, found, 4, 0.05)) if near else ()
    forget(built.corpus, built.workspace, found, by="Ada", reason="asked to", near=close)


def two_files(built: Published, web: Web) -> None:
    built.write("a", pairs(web, range(7)))
    built.write("b", pairs(web, range(7, 11), "127.0.0.2"))


SELECTORS: dict[str, tuple[Callable[[Web], Selector], set[int]]] = {
    "url": (lambda web: selector_of("url", web.url(3).replace("http://", "HTTPS://")), {3}),
    "domain": (lambda web: selector_of("domain", "127.0.0.2"), {7, 8, 9, 10}),
    "uid": (lambda web: selector_of("uid", uid(web.url(5), caption(5)).upper()), {5}),
    "sha256": (lambda web: selector_of("sha256", hashlib.sha256(picture(2)).hexdigest()), {2}),
}


@pytest.mark.parametrize("kind", SELECTORS)
def test_what_is_forgotten_leaves_nothing_and_the_rest_is_neither_fetched_nor_scored_again(
    kind: str, root: str, corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on(root)
    two_files(built, web)
    first = built.build()
    hits, scored, before = dict(web.hits), list(built.scored), built.kept(first)
    urls = {number: web.url(number, "127.0.0.2" if number > 6 else "127.0.0.1") for number in range(11)}
    uids = {number: uid(url, caption(number)) for number, url in urls.items()}
    asked, gone = SELECTORS[kind]
    part = "web-000001" if min(gone) > 6 else "web-000000"
    media = {number: stored(built, part, uids[number]) for number in gone}
    taken(built, asked(web))
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
    names = {one.name for one in built.workspace.shards_dir.glob("*.tar")}
    taken(built, SELECTORS["uid"][0](web))
    second = built.build()
    manifest = json.loads((built.workspace.release_dir(second) / "manifest.json").read_text())
    fresh = {shard["name"] for shard in manifest["shards"]} - names
    assert len(fresh) <= 1 < len(manifest["shards"])


def test_what_was_forgotten_does_not_come_back_in_a_new_file_or_under_another_caption(
    root: str, corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on(root)
    built.write("a", pairs(web, range(4)))
    built.build()
    taken(built, selector_of("url", web.url(1)), selector_of("sha256", hashlib.sha256(picture(2)).hexdigest()))
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
    taken(built, selector_of("url", web.url(1)))
    built.build()
    hits = dict(web.hits)
    built.write("a", [*pairs(web, range(5)), (web.url(1), "other words")])
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2, 3, 4)}
    assert web.hits["/1.jpg"] == hits["/1.jpg"]
    assert places_of(built.workspace.root / "parts", b"other words") == []


def test_near_duplicates_are_offered_and_forgotten_when_asked(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    like = [
        (web.url(1), "the same URL in other words"),
        (web.url(1, "127.0.0.2"), "the same file elsewhere"),
        (web.url(1, query="?quality=40"), "the same picture, saved again"),
    ]
    built.write("a", pairs(web, range(5)) + like)
    built.build()
    found = find(built.workspace, [selector_of("uid", uid(web.url(1), caption(1)))])
    near = find_near(built.workspace, found, 4, 0.02)
    told = {one.hit.uid: one.how for one in near}
    assert told[uid(*like[0])] == "same URL"
    assert told[uid(*like[1])] == "same file"
    assert told[uid(*like[2])] in ("phash", "embedding")
    assert set(told) == {uid(*row) for row in like}
    assert all((one.source, one.of) == ("web", found.hits[0].uid) for one in near)
    forget(built.corpus, built.workspace, found, by="Ada", near=hits_of(near))
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2, 3, 4)}
    built.write("b", [(web.url(1), "once more"), (web.url(1, "127.0.0.3"), "and elsewhere")])
    assert len(built.kept(built.build())) == 4


def test_killed_at_any_step_it_is_finished_by_the_next_run(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    built = corpus_on()
    two_files(built, web)
    built.build()
    asked = [selector_of("url", web.url(3)), selector_of("domain", "127.0.0.2")]
    needles = [caption(3).encode(), stored(built, "web-000000", uid(web.url(3), caption(3)))]
    whole = _copy(built, tmp_path / "whole")
    taken(whole, *asked)
    wanted = _digests(whole)
    hits = dict(web.hits)
    step = 0
    while True:
        broken = _copy(built, tmp_path / f"killed-{step}")
        with _killed_at(step) as killer, suppress(OSError):
            taken(broken, *asked)
        if not killer["killed"]:
            break
        begun = [entry.what for entry in read_log(broken.workspace)]
        if begun:
            assert finish(broken.corpus, broken.workspace, by="Ada") == ([1] if begun == ["forget"] else [])
        else:
            taken(broken, *asked)
        assert _digests(broken) == wanted, f"killed at step {step}"
        for needle in needles:
            assert places_of(broken.workspace.root / "parts", needle) == []
        assert [plan.why for plan in plan_parts(broken.corpus, broken.workspace) if plan.stale] == []
        shutil.rmtree(broken.root)
        step += 1
    assert step > 20
    assert dict(web.hits) == hits


def test_a_build_finishes_what_a_killed_forget_began(corpus_on: CorpusOn, web: Web, tmp_path: Path) -> None:
    built = corpus_on()
    two_files(built, web)
    built.build()
    for step in (3, 6, 11):
        broken = _copy(built, tmp_path / f"killed-{step}")
        with _killed_at(step), pytest.raises(OSError, match="killed"):
            taken(broken, selector_of("url", web.url(3)))
        hits = dict(web.hits)
        release = broken.build()
        assert uid(web.url(3), caption(3)) not in broken.kept(release)
        assert len(broken.kept(release)) == 10
        assert dict(web.hits) == hits
        assert places_of(broken.workspace.root / "parts", caption(3).encode()) == []


def test_a_release_is_not_made_of_parts_that_still_hold_it(corpus_on: CorpusOn, web: Web) -> None:
    from mmdata.select.stage import select_samples

    built = corpus_on()
    built.write("a", pairs(web, range(4)))
    built.build()
    with _killed_at(3), pytest.raises(OSError, match="killed"):
        taken(built, selector_of("url", web.url(3)))
    assert read_log(built.workspace)
    with pytest.raises(DataError, match="the opt-out has changed"):
        select_samples(built.corpus, built.workspace)


def test_the_log_keeps_hashes_and_names_who_signed(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    two_files(built, web)
    first = built.build()
    taken(built, selector_of("url", web.url(3)))
    begun, done = read_log(built.workspace)
    assert (begun.what, begun.by, begun.reason, dict(begun.counts)) == (
        "forget",
        "Ada",
        "asked to",
        {"near": 0, "samples": 1},
    )
    assert (dict(begun.parts), begun.releases, dict(begun.selectors)) == ({"web-000000": 1}, (first,), {"url": 1})
    assert (done.what, done.of, done.before) == ("done", 1, begun.digest)
    for needle in (b"3.jpg", caption(3).encode(), uid(web.url(3), caption(3)).encode()):
        assert places_of(built.workspace.root / "takedown", needle) == []
    with pytest.raises(UserError, match="signed for"):
        forget(built.corpus, built.workspace, find(built.workspace, [selector_of("url", web.url(4))]), by=" ")


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [lines[0].replace("Ada", "Eve"), *lines[1:]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, "{}"],
    ],
)
def test_a_log_that_was_tampered_with_is_found_out_and_stops_everything(
    tamper: Callable[[list[str]], list[str]], corpus_on: CorpusOn, web: Web
) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    for number in (8, 9):
        taken(built, selector_of("url", web.url(number)))
    path = log_path(built.workspace)
    path.write_text("\n".join(tamper(path.read_text().splitlines()[:3])) + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        read_log(built.workspace)
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        built.build()
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        append(built.workspace, read_log(built.workspace)[0])


def test_hashes_that_were_swapped_are_found_out(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    for number in (8, 9):
        taken(built, selector_of("url", web.url(number)))
    folder = built.workspace.root / "takedown" / "forgotten"
    (folder / "000001.parquet").write_bytes((folder / "000003.parquet").read_bytes())
    with pytest.raises(DataError, match=r"000001\.parquet: is not the table of hashes that was signed off"):
        load_opt_out(built.workspace)


def test_explain_tells_that_and_when_and_no_url(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    built.build()
    taken(built, selector_of("url", web.url(1)))
    story = explain(built.corpus, built.workspace, uid(web.url(1), caption(1)))
    assert story.verdict.startswith(f"forgotten at {read_log(built.workspace)[0].at}, entry 1")
    assert web.url(1).partition("://")[2] not in repr(story)
    assert caption(1) not in repr(story)


def test_a_part_that_is_being_built_is_not_touched(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on(engine={"wait_s": 0})
    built.write("a", pairs(web, range(3)))
    built.build()
    with leased(built.workspace, "part-web-000000", "media"), pytest.raises(UserError, match="is held by media"):
        taken(built, selector_of("url", web.url(1)))
    assert finish(built.corpus, built.workspace, by="Ada") == [1]
    assert is_forgotten(built.workspace, [selector_of("url", web.url(1))])


def test_what_is_not_there_is_kept_out_all_the_same(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    built.write("a", pairs(web, range(3)))
    taken(built, selector_of("url", web.url(1)))
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2)}
    assert "/1.jpg" not in web.hits


def _copy(built: Published, root: Path) -> Published:
    shutil.copytree(built.root, root)
    return Published(built.folder, str(root), built.web, **built.sections)


def _digests(built: Published) -> dict[str, Any]:
    """What every stamp says of a part, and which tars lie there."""
    found: dict[str, Any] = {}
    for part in built.parts():
        folder = built.workspace.part_dir(part)
        for path in sorted(folder.rglob("*.json"), key=str):
            found[str(path.relative_to(folder.parent))] = json.loads(path.read_text())
        found[part] = sorted(path.name for path in folder.rglob("*.tar"))
    return found


@contextmanager
def _killed_at(step: int) -> Iterator[dict[str, bool]]:
    """Everything stops at that publish: before it if the step is even, else right after it."""
    real = mmdata.storage.atomic.atomic_path
    state = {"count": 0, "killed": False}

    @contextmanager
    def dying(target: Any, name: Any = None) -> Iterator[Path]:
        is_lease = "leases" in str(target)
        mine = state["count"] == step // 2 and not is_lease and not state["killed"]
        state["count"] += not is_lease
        if mine and step % 2 == 0:
            state["killed"] = True
            raise OSError("killed before")
        with real(target, name) as draft:
            yield draft
        if mine:
            state["killed"] = True
            raise OSError("killed after")

    with pytest.MonkeyPatch.context() as patch:
        for module in (mmdata.storage.atomic, mmdata.storage.tables, mmdata.workspace.media_tar):
            patch.setattr(module, "atomic_path", dying)
        yield state  # type: ignore[misc]
