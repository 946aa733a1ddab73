"""The log of forgotten samples: what it holds, and how tampering is noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmdata.errors import DataError, UserError
from mmdata.optout.forget_log import append, log_path, read_log
from mmdata.optout.selectors import selector_of
from mmdata.takedown.find import find
from mmdata.takedown.forget import forget
from tests.support.published import Web, caption, pairs, places_of, uid
from tests.support.takedowns import CorpusOn, forget_samples, two_files


def test_the_log_keeps_hashes_and_names_who_signed(corpus_on: CorpusOn, web: Web) -> None:
    built = corpus_on()
    two_files(built, web)
    first = built.build()
    forget_samples(built, selector_of("url", web.url(3)))
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
    with pytest.raises(UserError, match="who signs it"):
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
        forget_samples(built, selector_of("url", web.url(number)))
    path = log_path(built.workspace)
    path.write_text("\n".join(tamper(path.read_text().splitlines()[:3])) + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        read_log(built.workspace)
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        built.build()
    with pytest.raises(DataError, match=r"log\.jsonl, line \d"):
        append(built.workspace, read_log(built.workspace)[0])
