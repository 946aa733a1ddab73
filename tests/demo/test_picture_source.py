"""The demo's pictures: copies, oddities in the real download, the bomb."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow.parquet as pq
from PIL import Image

from mmdata.config.load import load_corpus
from mmdata.demo.picture_source import bomb_png
from mmdata.demo.web_server import DemoServer
from mmdata.download import images
from mmdata.web.guard import Guard, install


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
    outcomes: dict[str, set[str]] = {}
    with DemoServer(demo.site, port=demo.port), ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda row: images.fetch_image(urls[row[0], row[1]], download), odd)
        for (_, _, planted), fetched in zip(odd, answers, strict=True):
            outcomes.setdefault(planted, set()).add(fetched.failure.error if fetched.failure else fetched.status)
    assert outcomes == EXPECTED


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
