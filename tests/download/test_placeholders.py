"""Pictures that stand for lost ones are told from copies of a picture."""

from __future__ import annotations

import hashlib

import pytest

from mmdata.download.placeholders import Moved, file_name, is_moved, placeholders
from mmdata.download.stage import fetch_part
from tests.support.hostile_server import answer, jpeg
from tests.support.media_parts import records


@pytest.mark.parametrize(
    ("url", "final_url", "moved"),
    [
        ("http://a.example/x/1.jpg", "https://cdn.example/y/1.jpg?w=200", True),
        ("http://a.example/x/a%20b.jpg", "https://a.example/x/a b.jpg", False),
        ("http://a.example/x/1.jpg", None, False),
        ("http://i.imgur.example/abc.jpg", "http://i.imgur.example/removed.png", True),
    ],
)
def test_a_picture_is_moved_if_its_file_has_another_name(url, final_url, moved):
    assert is_moved(url, final_url) == (moved and file_name(url) != file_name(final_url))


def moved(count: int, final: str = "https://a.example/p.jpg", captions: int | None = None, sha256: str = "s"):
    texts = [f"words {number % (captions or count)}" for number in range(count)]
    return [Moved(f"https://a.example/{n}.jpg", final, sha256, frozenset({text})) for n, text in enumerate(texts)]


def test_many_urls_with_many_captions_that_lead_to_one_picture_are_placeholders():
    found = dict(placeholders([*moved(10), *moved(9, sha256="other")], least=10))
    assert len(found) == 10
    assert found["https://a.example/3.jpg"] == (
        "redirected to https://a.example/p.jpg, as 9 other URLs of the slice are"
    )


def test_copies_of_a_picture_with_few_captions_are_no_placeholders():
    assert list(placeholders(moved(40, captions=9), least=10)) == []


@pytest.mark.parametrize(
    ("name", "is_placeholder"),
    [
        *(("removed.png", True), ("photo_unavailable_l.png", True), ("404.gif", True), ("no-image.jpg", True)),
        *(("NoImageAvailable.png", True), ("image_not_found_300x300.jpg", True), ("default-photo.jpg", True)),
        *(
            ("removed-trees.jpg", True),
            ("tree-removed.jpg", False),
            ("4040.jpg", False),
            ("missing_cat_poster.jpg", False),
        ),
        *(("placeholder", True), ("", False), ("image.jpg", False)),
    ],
)
def test_a_name_may_say_that_a_picture_is_a_placeholder(name, is_placeholder):
    assert bool(list(placeholders(moved(1, f"https://a.example/x/{name}?s=1"), least=10))) == is_placeholder


def test_placeholders_are_counted_and_not_stored(web, handmade):
    for number in range(12):
        web.files[f"/gone{number}"] = answer(b"", "302 Found", Location="/jpg/1")
    web.files["/lost"] = answer(b"", "302 Found", Location="/removed.png")
    web.files["/removed.png"] = answer(jpeg(2))
    sha256 = hashlib.sha256(jpeg(1)).hexdigest()
    rows = [{"url": web.url(f"/gone{number}"), "caption": f"words {number}"} for number in range(11)]
    rows += [{"url": web.url("/gone11"), "caption": "expected", "expected_sha256": sha256}]
    rows += [{"url": web.url("/lost"), "caption": "lost"}, {"url": web.url("/removed.png"), "caption": "itself"}]
    rows += [{"url": web.url("/jpg/1"), "caption": f"copy {number}"} for number in range(12)]
    part = handmade(rows)
    report = fetch_part(part.corpus, part.workspace, part.name)
    assert dict(report.reasons) == {"placeholder": 12}
    assert sum(record["status"] == "success" for record in records(part)) == len(rows) - 12
    placeholder = next(record for record in records(part) if record["error"] == "placeholder")
    assert (placeholder["status"], placeholder["length"], placeholder["width"]) == ("failed_to_download", None, None)


def test_placeholders_are_kept_if_the_configuration_says_so(web, handmade):
    for number in range(3):
        web.files[f"/gone{number}"] = answer(b"", "302 Found", Location="/removed.png")
    web.files["/removed.png"] = answer(jpeg(2))
    part = handmade(
        [{"url": web.url(f"/gone{number}"), "caption": f"words {number}"} for number in range(3)], placeholder_urls=None
    )
    assert dict(fetch_part(part.corpus, part.workspace, part.name).reasons) == {}
