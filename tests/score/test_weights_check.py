"""Weights are looked for before anything is fetched: on this machine, else at the hub, for seconds at most."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mmdata.config import Recaption, Score
from mmdata.errors import UserError
from mmdata.score import weights_check
from mmdata.score.weights_check import check_weights

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0" * 40


class Hub:
    """A hub on loopback: `files` are the paths that it has; all else is answered with `status`."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.status, self.asked = 404, Counter[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.asked[self.path] += 1
                self.send_response(200 if self.path in hub.files else hub.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty cache, and a hub that has nothing."""
    hub = Hub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    endpoint = f"http://127.0.0.1:{hub.server.server_port}"
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        template = endpoint if name == "ENDPOINT" else endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, name, template)
    for variable in weights_check.OFFLINE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    weights_check._why_out_of_reach.cache_clear()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def cache(tmp_path: Path, repository: str, file: str) -> None:
    """Put a file into the cache, as the hub's client does."""
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / file).write_bytes(b"weights")


DEFAULT = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@pytest.mark.parametrize(
    ("score", "repository", "file"),
    [
        ({}, DEFAULT, "open_clip_model.safetensors"),
        ({}, DEFAULT, "open_clip_pytorch_model.bin"),
        ({"model": "hf-hub:owner/name"}, "owner/name", "open_clip_model.safetensors"),
        ({"model": "demo", "transcriber": "openai/whisper-tiny"}, "openai/whisper-tiny", "config.json"),
        ({"model": "demo", "audio_model": "laion/clap"}, "laion/clap", "config.json"),
    ],
)
def test_weights_in_the_cache_or_at_the_hub_are_enough(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: dict, repository: str, file: str
) -> None:
    with pytest.raises(UserError, match=f"{repository} answers HTTP 404; so nothing is fetched. Remedy: "):
        check_weights(Score(**score))
    weights_check._why_out_of_reach.cache_clear()
    hub.files = {f"/{repository}/resolve/main/{file}"}
    check_weights(Score(**score))
    asked = hub.asked.total()
    cache(tmp_path, repository, file)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_weights(Score(**score))
    assert hub.asked.total() == asked, "what is in the cache is not asked for"


def test_a_hub_that_cannot_be_reached_is_told_within_seconds(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached"):
        check_weights(Score())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("variable", weights_check.OFFLINE_VARIABLES)
def test_a_machine_that_is_set_offline_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UserError, match=f"{variable} is set"):
        check_weights(Score())
    assert not hub.asked


def test_weights_that_need_a_token_are_told(hub: Hub) -> None:
    hub.status = 401
    with pytest.raises(UserError, match="HF_TOKEN"):
        check_weights(Score(model="hf-hub:owner/name"))


def test_an_answer_is_remembered_for_a_while(hub: Hub) -> None:
    for _ in range(3):
        with pytest.raises(UserError):
            check_weights(Score(model="hf-hub:owner/name"))
    assert set(hub.asked.values()) == {1}


@pytest.mark.usefixtures("hub")
def test_files_of_the_user_are_looked_at(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(b"")
    check_weights(Score(model="demo"))
    check_weights(Score(model="ViT-B-32", pretrained=str(checkpoint)))
    with pytest.raises(UserError, match=r"has none of open_clip_model\.safetensors"):
        check_weights(Score(model=f"local-dir:{tmp_path}"))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    check_weights(Score(model=f"local-dir:{tmp_path}"))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["a/b/c/d", "two words"])
def test_a_name_that_is_no_id_of_the_hub_is_told(name: str) -> None:
    with pytest.raises(UserError, match="neither a folder nor an id of the hub"):
        check_weights(Score(model="demo", transcriber=name))


@pytest.mark.usefixtures("hub")
def test_a_captioner_of_transformers_is_looked_for_and_one_of_the_users_own_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recaption\.model"):
        check_weights(Score(model="demo"), Recaption(model=str(tmp_path)))
    check_weights(Score(model="demo"), Recaption(model=str(tmp_path), captioner="my.module:function"))
    (tmp_path / "config.json").write_text("{}")
    check_weights(Score(model="demo"), Recaption(model=str(tmp_path)))
