"""The demo corpus: deterministic, with the truth it claims, and readable by the sources and the download."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.config.load import load_corpus
from mmdata.demo.demo_folder import make_demo, open_demo
from mmdata.demo.drawings import demo_emoji, demo_photos
from mmdata.demo.picture_plan import ODDITIES, RARE_KINDS, SHARES, plan_rows
from mmdata.demo.picture_source import bomb_png
from mmdata.demo.recording_sources import recording_counts
from mmdata.demo.web_server import DemoServer
from mmdata.download import images
from mmdata.errors import UserError
from mmdata.sources.catalog import update_catalog
from mmdata.storage.tables import read_table
from mmdata.takedown.read_part import read_part
from mmdata.web.guard import Guard, install
from mmdata.workspace.layout import Workspace


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def planned():
    return plan_rows(1500, demo_emoji(), demo_photos())


def test_the_planted_shares_are_what_they_say(planned):
    counted = Counter(row.planted for row in planned)
    assert len(planned) == 1500
    for name, share in SHARES.items():
        assert counted[name] == max(2, round(share * 1500)), name
    for name, (count, _) in ODDITIES.items():
        assert counted[name] == count, name


def test_kinds_have_a_long_tail(planned):
    counted = Counter(row.kind for row in planned if row.planted in ("clean", "rare", "mismatch"))
    ordered = counted.most_common()
    assert ordered[0][1] > 10 * ordered[-2][1]
    assert ordered[-1][0] == "photo"
    assert all(row.kind in RARE_KINDS for row in planned if row.planted == "rare")


def test_a_mismatch_has_another_picture_s_caption(planned):
    honest = {row.caption: row.kind for row in planned if row.planted in ("clean", "rare")}
    mismatched = [row for row in planned if row.planted == "mismatch"]
    known = [row for row in mismatched if row.caption in honest]
    assert len(known) > len(mismatched) // 2
    assert all(honest[row.caption] != row.kind for row in known)
    assert not any(row.picture and row.picture.subject.name in row.caption.split(", ") for row in mismatched)


def test_copies_name_the_row_that_they_copy(planned):
    for row in planned:
        if row.planted in ("near_duplicate", "exact_duplicate", "repeated_row", "repeated_url"):
            original = planned[row.copy_of]
            assert original.planted == "clean"
            assert (row.address == original.address) == (row.planted in ("repeated_row", "repeated_url"))
            assert (row.caption == original.caption) or row.planted != "repeated_row"


def test_no_picture_of_the_demo_is_one_that_the_scorer_may_be_trained_on(planned):
    from mmdata.demo.drawings import training_emoji, training_photos

    trained = {one.code for one in training_emoji()} | {one.name for one in training_photos()}
    shown = {getattr(row.picture.subject, "code", row.picture.subject.name) for row in planned if row.picture}
    assert not shown & trained


def test_too_few_rows_are_refused():
    with pytest.raises(UserError, match="at least 150 rows"):
        plan_rows(50, demo_emoji(), demo_photos())


def test_an_existing_demo_is_used_as_it_is(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.site.rglob("*")}
    again = make_demo(demo.folder, demo.rows)
    assert again.reused
    assert (again.port, again.folder) == (demo.port, demo.folder)
    assert {path: path.stat().st_mtime_ns for path in demo.site.rglob("*")} == before


def test_a_demo_that_was_cut_off_is_made_again_byte_by_byte(demo, tmp_path):
    folder = tmp_path / "half"
    (folder / "site/pictures").mkdir(parents=True)
    mark = json.loads((demo.folder / "demo.json").read_text())
    (folder / "demo.json").write_text(json.dumps(mark | {"complete": False}))
    (folder / "site/pictures/half.png").write_bytes(b"half")
    assert open_demo(folder) is None
    again = make_demo(folder, demo.rows)
    assert not again.reused
    assert digests(again.folder) == {k: v for k, v in digests(demo.folder).items() if not k.startswith("workspace")}


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no demo"):
        make_demo(tmp_path, 150)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_sources_read_it_and_every_truth_has_its_row(demo, tmp_path):
    corpus = load_corpus(demo.config_path)
    workspace = Workspace(str(tmp_path))
    report = update_catalog(corpus, workspace)
    assert report.reasons == {"file_empty": 1}
    parts = workspace.catalog().live_parts()
    assert sum(part.stop - part.start for part in parts if part.source == "web") == demo.rows
    assert report.counts["rows"] == demo.rows + sum(recording_counts(demo.rows))
    assert 6 <= report.counts["parts"] <= 7
    found: Counter[str] = Counter()
    for part in parts:
        read_part(corpus, workspace, part.name)
        if part.source != "web":
            continue
        stamp = workspace.part_stamp(part.name, "rows")
        assert stamp is not None
        for name in stamp.slices:
            table = read_table(workspace.table(part.name, "rows", name))
            found.update(dict(zip(table["uid"].to_pylist(), table["copies"].to_pylist(), strict=True)))
    truth = pl.read_parquet(demo.truth_path)
    assert found == Counter(truth["uid"].to_list())
    assert found.total() == demo.rows


def test_exact_copies_are_equal_and_near_ones_are_not(demo):
    rows = pl.concat(
        [
            pl.read_parquet(path).with_columns(file=pl.lit(path.name)).with_row_index("row")
            for path in sorted(demo.inbox.glob("*.parquet"))
        ]
    )
    truth = pl.read_parquet(demo.truth_path).join(
        rows.with_columns(pl.col("row").cast(pl.Int64)).select("file", "row", "URL"), on=["file", "row"]
    )
    url = dict(truth.select("uid", "URL").iter_rows())

    def body(address: str) -> bytes:
        return (demo.site / address.split("/", 3)[3]).read_bytes()

    copies = truth.filter(pl.col("planted").is_in(["exact_duplicate", "near_duplicate"]))
    assert len(copies) > 4
    for copy, planted, original in copies.select("URL", "planted", "of_uid").iter_rows():
        assert copy != url[original]
        assert (body(copy) == body(url[original])) == (planted == "exact_duplicate")


def test_every_oddity_ends_as_it_should_in_the_real_download(demo):
    corpus = load_corpus(demo.config_path)
    download = corpus.download.model_copy(update={"deadline_s": 2.5, "timeout_s": 1.5, "retries": 1})
    images.load_img2dataset(download)
    install(Guard(download))
    truth = pl.read_parquet(demo.truth_path)
    urls = {
        (path.name, number): url
        for path in demo.inbox.glob("*.parquet")
        for number, url in enumerate(pq.read_table(path, columns=["URL"])["URL"].to_pylist())
    }
    odd = [row for row in truth.select("file", "row", "planted").iter_rows() if row[2] in EXPECTED]
    told: dict[str, set[str]] = {}
    with DemoServer(demo.site, port=demo.port), ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda row: images.fetch_image(urls[row[0], row[1]], download), odd)
        for (_, _, planted), fetched in zip(odd, answers, strict=True):
            told.setdefault(planted, set()).add(fetched.failure.error if fetched.failure else fetched.status)
    assert told == EXPECTED


EXPECTED = {
    "redirect_chain": {"success"},
    "busy_once": {"success"},
    "mislabelled": {"success"},
    "odd_caption": {"success"},
    "not_found": {"http_404"},
    "gone": {"http_410"},
    "server_down": {"http_503"},
    "broken_image": {"not_an_image"},
    "cut_short": {"truncated"},
    "oversized": {"too_large"},
    "endless": {"too_large"},
    "redirect_private": {"private_address"},
    "redirect_metadata": {"private_address"},
    "redirect_loop": {"too_many_redirects"},
    "private_url": {"private_address"},
    "slow": {"deadline"},
    "html_page": {"not_an_image"},
    "opt_out": {"robots"},
    "bomb": {"bomb"},
    "file_url": {"bad_scheme"},
}


def test_the_bomb_is_a_valid_png():
    small = bomb_png(800)
    with Image.open(io.BytesIO(small)) as image:
        image.load()
        assert image.size == (800, 800)
    assert len(bomb_png(40_000)) < 400_000
