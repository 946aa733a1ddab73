"""Whether the weights of the scorers are on this machine or can be fetched, asked before anything else is fetched.

Loading would find it out, too, but only after all media of a part were fetched, and after minutes of retries.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmdata.config import Recaption, Score
from mmdata.config.recaption import NO_CAPTIONS
from mmdata.config.scorer_names import clean_tag, known_models
from mmdata.config.scorers import resolved
from mmdata.display import shown
from mmdata.errors import UserError

TIMEOUT_S = 5.0
RECHECK_AFTER_S = 300.0
"""How long an answer of the hub holds within a process."""

SCORER_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
MODEL_FILES = ("config.json",)
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Files of a repository of the hub, any of which is enough; or, without a repository, a file at a URL."""

    key: str
    repository: str
    files: tuple[str, ...]
    url: str = ""


def check_weights(score: Score, recaption: Recaption = NO_CAPTIONS) -> None:
    """Raise UserError if the weights of a scorer or of a captioner are neither on this machine nor within reach.

    Asks the hub for at most a few seconds, and not at all if the files are in its cache.
    """
    score = resolved(score)
    for wanted in (*_wanted(score), *_wanted_by(recaption)):
        problem = None if _is_cached(wanted) else _why_out_of_reach(wanted, int(time.monotonic() / RECHECK_AFTER_S))
        if problem is not None:
            raise UserError(
                f"{wanted.key}: the weights are not on this machine, and {problem}; so nothing is fetched. Remedy: "
                "check the network, or download the weights and give their folder or file; `model: demo` needs neither."
            )


def _wanted(score: Score) -> Iterator[_Wanted]:
    """What has to be on the machine or within reach. Raises UserError for files of the user that are missing."""
    schema, _, place = score.model.partition(":")
    if schema == "local-dir":
        _check_folder("score.model", Path(place), SCORER_FILES)
    elif schema == "hf-hub":
        yield _Wanted("score.model", place, SCORER_FILES)
    elif score.model != "demo" and not Path(score.pretrained or "").is_file():
        published = known_models().get(score.model.replace("/", "-"), {}).get(clean_tag(score.pretrained or ""))
        if published is not None and published.hub:
            repository, _, file = published.hub.rpartition("/")
            yield _Wanted("score.pretrained", repository, (file,) if file else SCORER_FILES)
        elif published is not None:
            yield _Wanted("score.pretrained", "", (), published.url)
    for key in ("audio_model", "transcriber"):
        yield from _wanted_of_transformers(f"score.{key}", getattr(score, key))


def _wanted_by(recaption: Recaption) -> Iterator[_Wanted]:
    """As `_wanted`. What a captioner of the user's own needs is not known."""
    if recaption.captioner == "transformers":
        yield from _wanted_of_transformers("recaption.model", recaption.model)


def _wanted_of_transformers(key: str, name: str | None) -> Iterator[_Wanted]:
    if name is not None and Path(name).is_dir():
        _check_folder(key, Path(name), MODEL_FILES)
    elif name is not None:
        yield _Wanted(key, name, MODEL_FILES)


def _check_folder(key: str, folder: Path, files: tuple[str, ...]) -> None:
    if not any((folder / file).is_file() for file in files):
        raise UserError(f"{key}: {folder} has none of {', '.join(files)}. Remedy: give the folder of a model.")


def _is_cached(wanted: _Wanted) -> bool:
    if not wanted.repository:
        return (Path.home() / ".cache" / "clip" / wanted.url.rpartition("/")[2]).is_file()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(wanted.repository, file), str) for file in _spellings(wanted))
    except HFValidationError as error:
        raise UserError(
            f"{wanted.key}: {wanted.repository!r} is neither a folder nor an id of the hub ({shown(str(error))}). "
            "Remedy: give `owner/name`, or the folder of a model."
        ) from None


def _spellings(wanted: _Wanted) -> tuple[str, ...]:
    """The files, and the safe form of each, which open_clip prefers."""
    safe = tuple(f"{file.rpartition('.')[0]}.safetensors" for file in wanted.files if file.endswith((".bin", ".pth")))
    return (*wanted.files, *safe)


@cache
def _why_out_of_reach(wanted: _Wanted, period: int) -> str | None:
    """Why no file can be fetched; None if one can. `period` makes the cache forget."""
    del period
    if wanted.repository:
        if variable := next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "0") not in ("", "0")), None):
            return f"{variable} is set"
        from huggingface_hub import get_token, hf_hub_url

        urls = [hf_hub_url(wanted.repository, file) for file in wanted.files]
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
    else:
        urls, headers = [wanted.url], {}
    status = 0
    for url in urls:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "mmdata", **headers})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return None
        except urllib.error.HTTPError as error:
            status = error.code
            if status not in (404, 410):
                break
        except OSError as error:  # no network, or no answer in time
            return f"{request.host} cannot be reached ({shown(str(getattr(error, 'reason', error)))})"
    if status in (401, 403):
        return f"{wanted.repository or wanted.url} is not there, or needs a token (HTTP {status}; HF_TOKEN)"
    return f"{wanted.repository or wanted.url} answers HTTP {status}"
