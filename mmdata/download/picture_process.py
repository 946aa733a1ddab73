"""Decodes large and suspicious pictures in one process, which is killed when it takes too long.

`python -m mmdata.download.picture_process` is that process. It answers requests in JSON lines, and the JPEG goes to a
file that both processes know: nothing is pickled, because a process that decodes hostile files must not be able to run
code in the other one. Used by `images` and `image_rows`.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from mmdata.config import Download
from mmdata.download.pictures import MAX_DECODE_BYTES, Picture, make_picture
from mmdata.download.private_img2dataset import resizer
from mmdata.media.child_process import ChildProcess
from mmdata.media.image_to_bmp import decoding_failure
from mmdata.web.failures import FetchError

_MODULE = "mmdata.download.picture_process"
_START_TIMEOUT_S = 300  # its imports take seconds, and a minute on a machine that is busy
_lock = threading.Lock()
_process = ChildProcess(_MODULE)


def make_in_process(body: bytes, download: Download) -> Picture:
    """`pictures.make_picture` in the process. Pictures wait for each other, so their memory does not add up.

    The failure is `decode_timeout` if it takes longer than `download.decode_timeout_s`, and `decoder_crashed` if the
    process ends; a later run tries these again.
    """
    with _lock, tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
        source, out = Path(folder) / "body", Path(folder) / "jpeg"
        source.write_bytes(body)
        request = {"source": str(source), "out": str(out), "download": download.model_dump(mode="json")}
        answer = _ask({}, _START_TIMEOUT_S) if _process.pid is None else {}
        answer = _ask(request, download.decode_timeout_s) if answer is not None else None
        if answer is not None:
            failure = FetchError(*answer["failure"]) if answer["failure"] else None
            sizes = tuple(answer["original_size"]), tuple(answer["size"])
            return Picture(failure, answer["mime"], *sizes, None if failure else out.read_bytes())
        was_late = _process.timed_out
        _process.close()
    if was_late:
        detail = f"decoding took longer than download.decode_timeout_s ({download.decode_timeout_s:g} s)"
        return Picture(FetchError("decode_timeout", detail, may_pass=True))
    return Picture(FetchError("decoder_crashed", "the process that decoded it ended", may_pass=True))


def close() -> None:
    """End the process, if it runs. The next picture starts another."""
    with _lock:
        _process.close()


def _ask(request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
    """The answer to a request; None if the process has ended or was killed."""
    try:
        with _process.answers(request, timeout_s) as answers:
            return dict(json.loads(answers.readline()))
    except (OSError, ValueError):
        return None


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests; the first is empty, so that imports do not count towards a picture's time."""
    import cv2

    cv2.setNumThreads(1)
    resizer(256, 95)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit, hard = used_bytes + MAX_DECODE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    for line in requests:
        request = json.loads(line)
        answers.write(json.dumps(_answer(request) if request else {}).encode() + b"\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    download = Download(**request["download"])
    try:
        picture = make_picture(Path(request["source"]).read_bytes(), download)
    except Exception as error:  # noqa: BLE001 - whatever a hostile file causes is a problem of that file alone
        picture = Picture(decoding_failure(f"{type(error).__name__}: {error}"))
    if picture.data is not None:
        Path(request["out"]).write_bytes(picture.data)
    failure = [picture.failure.error, picture.failure.detail] if picture.failure else None
    return {
        "failure": failure,
        "mime": picture.mime,
        "original_size": picture.original_size,
        "size": picture.size,
    }


if __name__ == "__main__":
    answer_stream = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not be taken for an answer
    _serve(sys.stdin.buffer, answer_stream)
