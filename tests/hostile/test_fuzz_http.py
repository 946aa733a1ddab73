"""HTTP answers by grammar: a picture that a browser would show is stored, everything else has a documented reason."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

from mmdata.config import Clips, Download
from mmdata.download.images import fetch_image, load_img2dataset
from mmdata.web.guard import Guard, install
from mmdata.web.large_files import fetch_file
from mmdata.web.responses import MAX_HEADER_BYTES
from mmdata.web.retries import next_retry_at
from tests.support.fuzzing import draws
from tests.support.hostile_inputs import BY_GRAMMAR
from tests.support.hostile_server import HostileServer, answer, jpeg
from tests.support.http_grammar import any_answer

PICTURE = jpeg(1)
DOWNLOAD = Download(
    allow_hosts=["127.0.0.0/8"], timeout_s=2, deadline_s=4, retries=0, max_bytes=1_000_000, max_pixels=1_000_000
)
PAGES = Path(__file__).resolve().parents[2] / "docs"


def documented_reasons() -> frozenset[str]:
    """The names in backquotes on the page that says what a row without a medium lacks."""
    page = (PAGES / "sources.md").read_text(encoding="utf-8")
    return frozenset(re.findall(r"`([a-z_0-9]+)`", page))


def test_an_answer_gives_the_picture_or_a_documented_reason(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    reasons = documented_reasons()
    load_img2dataset(DOWNLOAD)
    install(Guard(DOWNLOAD))
    with HostileServer() as server:
        server.files["/sound"] = answer(PICTURE)
        for number, (name, draw) in enumerate(draws("HTTP answers", BY_GRAMMAR["HTTP answers"])):
            reply = any_answer(draw, PICTURE)
            server.files["/x"] = reply.data
            began = time.monotonic()
            if number % 4:
                fetched = fetch_image(server.url("/x"), DOWNLOAD)
            else:
                fetched = fetch_file(server.url("/x"), tmp_path / "file", DOWNLOAD, Clips(deadline_s=4))
            assert time.monotonic() - began < DOWNLOAD.deadline_s + 2, name
            outcome = "success" if fetched.failure is None else fetched.failure.error
            outcomes[outcome] += 1
            is_short = len(reply.data) - len(PICTURE) < MAX_HEADER_BYTES
            if reply.is_sound and is_short and number % 4:
                assert (outcome, fetched.size_bytes) == ("success", len(PICTURE)), (name, reply.data[:3000])
            if fetched.failure is not None:
                assert outcome != "unexpected", (name, fetched.failure.detail)
                assert outcome in reasons or re.fullmatch(r"http_[0-9]{3}", outcome), (name, outcome)
                assert len(fetched.failure.detail) < 600, name
                next_retry_at(server.url("/x"), fetched.failure, 1, DOWNLOAD)
            assert len(fetched.etag or "") <= 200, name
    assert outcomes["success"] > sum(outcomes.values()) / 3
    assert {"bad_response", "truncated", "not_an_image"} <= outcomes.keys(), outcomes
