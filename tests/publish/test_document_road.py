"""Documents from their source to a release: order of pictures and texts, and neighbours around what failed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.documents import texts_between
from mmdata.inspect.story import explain
from mmdata.optout.selectors import selector_of
from mmdata.publish.verify import verify_release
from mmdata.report.stage import report_release
from mmdata.storage.tables import read_table
from mmdata.takedown.find import find
from tests.support.document_corpus import (
    LOST,
    corpus_of_documents,
    drawn,
    expected,
    number_in,
    released,
    write,
)
from tests.support.published import SELECT_ALL, Published, Web, pairs, picture, serving
from tests.support.takedowns import forget_samples


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


@pytest.fixture(scope="module")
def road(web: Web, tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, str, list[list[int | str]]]:
    folder = tmp_path_factory.mktemp("documents")
    built = corpus_of_documents(folder, web)
    documents = drawn(3, 14)
    write(built, documents)
    built.write("pairs", pairs(web, range(6)))
    return built, built.build(), documents


def test_a_release_holds_each_document_in_its_order(road) -> None:
    built, release, documents = road
    verify_release(built.workspace.release_dir(release), decode=True)
    samples = released(built, release)
    seen = Counter[tuple[Any, ...]]()
    for members in samples.values():
        facts = json.loads(members["json"])
        if facts["signature"] != "document+text":
            continue
        pictures = sorted(ext for ext in members if ext.endswith(".jpg"))
        assert pictures == [f"{number:03d}.jpg" for number in range(len(pictures))]
        numbers = tuple(number_in(members[ext]) for ext in pictures)
        seen[numbers, tuple(texts_between(members["txt"].decode()))] += 1
        assert json.loads(facts["extra"])["picture_urls"] == [built.web.url(number) for number in numbers]
    wanted = [expected(document) for document in documents]
    assert seen == Counter((tuple(numbers), tuple(texts)) for numbers, texts in wanted if numbers)
    assert len(samples) - seen.total() == 6
    lost = sum(isinstance(segment, int) and segment >= LOST for document in documents for segment in document)
    assert lost > 10
    assert sum(not numbers for numbers, _ in wanted) >= 1, "a document without any picture left"


def test_the_index_counts_pictures_pixels_and_tokens(road) -> None:
    built, release, _ = road
    samples = released(built, release)
    for row in read_table(built.workspace.release_dir(release) / "index.parquet").to_pylist():
        members = samples[row["key"]]
        pictures = [Image.open(io.BytesIO(data)).size for ext, data in members.items() if ext.endswith("jpg")]
        assert row["pixels"] == sum(width * height for width, height in pictures)
        if row["signature"] == "document+text":
            assert row["frames"] == len(pictures)
            words = len(members["txt"].decode().replace("<image>", " ").split())
            assert row["tokens"] == (words * 4 + 2) // 3


def test_a_picture_is_scored_with_its_nearest_texts(road) -> None:
    from mmdata.score.scorer import load_scorer

    built, _, _ = road
    scorer = load_scorer(built.corpus.score)
    looked_at = 0
    for part in built.parts():
        rows = built.rows(part, "rows")
        media = built.rows(part, "media")
        for uid, features in built.rows(part, "features").items():
            if rows[uid]["kind"] != "document" or media[uid]["status"] != "success":
                continue
            texts = texts_between(rows[uid]["caption"])
            places = [at for at, one in enumerate(media[uid]["pictures"]) if one["status"] == "success"]
            assert len(features["frame_scores"]) == len(places)
            assert features["clip_score"] == pytest.approx(np.mean(features["frame_scores"]), abs=1e-6)
            assert features["clip_score_max"] == max(features["frame_scores"])
            assert features["phash"] is None
            assert features["n_words"] == len(rows[uid]["caption"].replace("<image>", " ").split())
            if len(places) == 1:
                before = [text for text in texts[: places[0] + 1] if text][-1:]
                after = [text for text in texts[places[0] + 1 :] if text][:1]
                cosines = scorer.embed_texts(before + after) @ np.asarray(features["embedding"], np.float32)
                assert features["clip_score"] == pytest.approx(float(cosines.max()), abs=2e-3)
                looked_at += 1
    assert looked_at > 0


def test_explain_and_the_report_show_a_document_in_its_order(road) -> None:
    built, release, _ = road
    index = read_table(built.workspace.release_dir(release) / "index.parquet").to_pylist()
    first_uid = min(row["uid"] for row in index if row["signature"] == "document+text")  # the gallery shows it
    story = explain(built.corpus, built.workspace, first_uid)
    assert story.sightings[0].media is not None
    assert story.sightings[0].rows["url"].startswith("https://page.example/")
    report_release(built.workspace.release_dir(release))
    page = (built.workspace.release_dir(release) / "report.html").read_text()
    section = page[page.index('id="clips"') :]
    text = story.sightings[0].rows["caption"].rpartition("<image>")[2].strip()
    assert "picture 1 of the document" in section and text in section
    assert "&lt;image&gt;" not in section.partition('<div class="passages">')[2].partition("</div>")[0]


def test_a_picture_of_an_evaluation_set_keeps_its_documents_out(road, tmp_path: Path) -> None:
    original, _, documents = road
    shutil.copytree(original.root, tmp_path / "workspace")
    numbers = sorted({number for document in documents for number in expected(document)[0]})
    hashes = [hashlib.sha256(picture(numbers[-1])).hexdigest(), "0" * 64]
    table = pa.table({"url": [original.web.url(numbers[0]), "https://e.org/other.jpg"], "sha256": hashes[::-1]})
    pq.write_table(table, tmp_path / "set.parquet")
    select = {**SELECT_ALL, "decontaminate": [{"name": "held", "table": str(tmp_path / "set.parquet")}]}
    sections = {**original.sections, "select": select}
    built = Published(original.folder, str(tmp_path / "workspace"), original.web, **sections)
    reasons = built.reasons(built.build())
    rows, media = built.rows("docs-000000", "rows"), built.rows("docs-000000", "media")
    held = {
        uid
        for uid, record in media.items()
        if record["status"] == "success"
        and (
            original.web.url(numbers[0]) in json.loads(rows[uid]["extra"])["picture_urls"]
            or hashes[0] in {one["sha256"] for one in record["pictures"]}
        )
    }
    out = {uid for uid, reason in reasons.items() if reason == "contaminated:held"}
    assert out & rows.keys() == held and len(held) > 1


def test_the_takedown_of_a_url_or_file_takes_the_documents_that_show_it(road, tmp_path: Path) -> None:
    original, _, documents = road
    shutil.copytree(original.root, tmp_path / "workspace")
    built = Published(original.folder, str(tmp_path / "workspace"), original.web, **original.sections)
    numbers = sorted({number for document in documents for number in expected(document)[0]})
    rows, media = built.rows("docs-000000", "rows"), built.rows("docs-000000", "media")
    by_url = {uid for uid, row in rows.items() if built.web.url(numbers[0]) in row["extra"]}
    files = {uid: {one["sha256"] for one in record["pictures"]} for uid, record in media.items()}
    sha256 = hashlib.sha256(picture(numbers[-1])).hexdigest()
    by_file = {uid for uid, held in files.items() if sha256 in held}
    selectors = selector_of("url", built.web.url(numbers[0])), selector_of("sha256", sha256)
    for selector, holders in zip(selectors, (by_url, by_file), strict=True):
        assert holders and find(built.workspace, [selector]).uids >= holders
    forget_samples(built, *selectors)
    for _ in range(2):  # a second build brings nothing back
        release = built.build()
        kept = {json.loads(members["json"])["uid"] for members in released(built, release).values()}
        assert not kept & (by_url | by_file)
    verify_release(built.workspace.release_dir(release))
    assert len(kept) > 3
