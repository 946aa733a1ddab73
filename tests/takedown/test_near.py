"""Near-duplicates of samples to forget."""

from __future__ import annotations

from mmdata.optout.selectors import selector_of
from mmdata.takedown.find import find
from mmdata.takedown.forget import forget
from mmdata.takedown.near import find_near, hits_of
from tests.support.published import Web, caption, pairs, uid
from tests.support.takedowns import CorpusOn


def test_near_duplicates_are_offered_and_forgotten_when_asked(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    like = [
        (web.url(1), "the same URL in other words"),
        (web.url(1, "127.0.0.2"), "the same file elsewhere"),
        (web.url(1, query="?quality=40"), "the same picture, saved again"),
    ]
    built.write("a", pairs(web, range(5)) + like)
    built.build()
    matches = find(built.workspace, [selector_of("uid", uid(web.url(1), caption(1)))])
    near = find_near(built.workspace, matches, 4, 0.02)
    reasons = {match.hit.uid: match.how for match in near}
    assert reasons[uid(*like[0])] == "same URL"
    assert reasons[uid(*like[1])] == "same file"
    assert reasons[uid(*like[2])] in ("phash", "embedding")
    assert set(reasons) == {uid(*row) for row in like}
    assert all((match.source, match.of) == ("web", matches.hits[0].uid) for match in near)
    forget(built.corpus, built.workspace, matches, by="Ada", near=hits_of(near))
    assert set(built.kept(built.build())) == {uid(web.url(n), caption(n)) for n in (0, 2, 3, 4)}
    built.write("b", [(web.url(1), "once more"), (web.url(1, "127.0.0.3"), "and elsewhere")])
    assert len(built.kept(built.build())) == 4
