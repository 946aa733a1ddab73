"""Finding what a selector means: in every part, in releases, and after it was forgotten."""

from __future__ import annotations

from mmdata.optout.selectors import Selector, selector_of
from mmdata.takedown.find import Hit, entries, find
from tests.support.published import Web, caption, uid
from tests.support.takedowns import SELECTORS, CorpusOn, forget_samples, two_files


def test_each_kind_of_selector_finds_its_samples_and_their_release(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    two_files(built, web)
    release = built.build()
    for selector, numbers in SELECTORS.values():
        matches = find(built.workspace, [selector(web), selector(web)])
        hosts = {number: "127.0.0.2" if number > 6 else "127.0.0.1" for number in numbers}
        assert matches.uids == {uid(web.url(number, hosts[number]), caption(number)) for number in numbers}
        assert matches.releases == {release: len(numbers)}
        assert matches.by_part() == {"web-000001" if min(numbers) > 6 else "web-000000": len(numbers)}
        assert (len(matches.selectors), matches.before) == (1, 0)
    selector = SELECTORS["uid"][0](web)
    forget_samples(built, selector)
    matches = find(built.workspace, [selector])
    assert (matches.hits, matches.before) == ([], 1)
    assert find(built.workspace, [selector_of("domain", "example.org")]).releases == {}


def test_near_duplicates_are_kept_out_by_url_and_file_too() -> None:
    from mmdata.takedown.find import Matches

    selector = Selector("uid", "0" * 32)
    hit = Hit("1" * 32, "web-000000", "0000", "example.org/a", "ab" * 32)
    matches = Matches([selector], [hit], 0, {})
    assert {kind for kind, _ in entries(matches)} == {"uid"}
    assert ("uid", selector.hash()) in entries(matches)
    other = Hit("2" * 32, "web-000000", "0000", None, None)
    kept = entries(matches, [other])
    assert sorted(kind for kind, _ in kept) == ["sha256", "uid", "uid", "uid", "url"]
