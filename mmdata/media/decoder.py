"""The process that decodes: `python -m mmdata.media.decoder`, run by `mmdata.media.decoder_pool`.

It takes one request a line (JSON) and answers with a line a clip, as soon as the clip is cut. The bytes of the clips
go to a file that both processes know. Nothing is pickled: a process that decodes hostile files must not be able to run
code in the other one.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmdata.errors import UserError

if TYPE_CHECKING:
    from mmdata.media.clip import Cut, CutProblem

MAX_ADDRESS_SPACE_BYTES = 6 << 30
SETUP_ERROR = "setup_error"  # key of the answer of a process that lacks a package


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in requests:
        for answer in _answers(json.loads(line), answers):
            _write(answers, answer)
        _write(answers, {"end": True})


def _answers(request: dict[str, Any], out: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Cut the clips of a request: each is written to `out` as soon as it is cut; yields what is known of the file."""
    try:
        import av  # noqa: F401 - imported here so that its absence is reported with the remedy
        import cv2

        from mmdata.media.clip import ClipOptions, CutProblem
        from mmdata.media.container import FileProblem
        from mmdata.media.cutting import Span, cut_file
    except ImportError:
        yield {
            SETUP_ERROR: "video and sound are decoded by PyAV, which is missing. Remedy: pip install 'mmdata[video]'"
        }
        return
    cv2.setNumThreads(1)  # each core has a decoder process of its own
    with Path(request["out"]).open("wb") as data:

        def write_clip(number: int, cut: Cut | CutProblem) -> None:
            if isinstance(cut, CutProblem):
                _write(out, {"clip": number, "problem": cut.problem, "detail": cut.detail})
                return
            members = []
            for ext, content in cut.members.items():
                members.append((ext, data.tell(), len(content)))
                data.write(content)
            data.flush()
            facts = {key: value for key, value in asdict(cut).items() if key != "members"}
            _write(out, {"clip": number, "members": members, **facts})

        spans = [Span(*span) for span in request["spans"]]
        try:
            options = ClipOptions(**request["options"])
            facts = cut_file(Path(request["path"]), request["kind"], spans, options, write_clip)
            yield {"facts": asdict(facts)}
        except FileProblem as problem:
            yield {"file_problem": problem.problem, "detail": problem.detail}
        except UserError as error:
            yield {SETUP_ERROR: str(error)}
        except MemoryError:
            detail = f"decoding took more than {MAX_ADDRESS_SPACE_BYTES >> 30} GiB"
            yield {"file_problem": "bomb", "detail": detail}
        except Exception as error:  # noqa: BLE001 - whatever a hostile file causes is a problem of that file alone
            yield {"file_problem": "undecodable", "detail": f"{type(error).__name__}: {error}"[:500]}


def _write(out: IO[bytes], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    answer_stream = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not be taken for an answer
    _serve(sys.stdin.buffer, answer_stream)
