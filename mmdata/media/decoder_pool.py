"""Decodes videos and sound in child processes, which may crash or be killed without harm to the part being fetched."""

from __future__ import annotations

import json
import queue
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.errors import UserError
from mmdata.media.child_process import ChildProcess
from mmdata.media.container import FileFacts
from mmdata.media.cores import cores
from mmdata.media.decoder import SETUP_ERROR

if TYPE_CHECKING:
    from mmdata.media.clip import ClipOptions
    from mmdata.media.cutting import Span


@dataclass(frozen=True, slots=True)
class Member:
    """Bytes of a clip in the file that the decoder writes."""

    ext: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CutClip:
    """A clip, or the problem why there is none. See `mmdata.media.clip.Cut`."""

    problem: str | None = None
    detail: str | None = None
    members: tuple[Member, ...] = ()
    times_s: tuple[float, ...] = ()
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    audio_s: float | None = None
    faces: int | None = None
    voice: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """The clips of a file.

    Args:
        clips: one a span, in the order of the spans.
        data: the file that holds the bytes of their members.
        facts: of the decoded file; None if it could not be opened.
    """

    clips: list[CutClip]
    data: Path
    facts: FileFacts | None = None


class DecoderPool(AbstractContextManager["DecoderPool"]):
    """Child processes that decode. Each starts when it is needed, and again after it has died. A context manager.

    Args:
        count: how many processes; 0: one a core.
        timeout_s: limit of the time for one file.
    """

    def __init__(self, count: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._free: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        self.processes = [ChildProcess("mmdata.media.decoder") for _ in range(count or cores())]
        for process in self.processes:
            self._free.put(process)

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.close()

    @contextmanager
    def decode(self, path: Path, kind: str, spans: Sequence[Span], options: ClipOptions) -> Iterator[Decoded]:
        """Cut spans out of a file. The clips' bytes exist within the block only. Waits until a process is free.

        If a process dies or takes too long, the clips that it has finished are kept, and the others have the problem
        `decoder_crashed` or `decode_timeout`.

        Args:
            kind: `video` or `audio`.

        Raises:
            UserError: a package that decoding needs is not installed.
        """
        process = self._free.get()
        try:
            with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
                data = Path(folder) / "clips"
                request = {
                    "path": str(path),
                    "out": str(data),
                    "kind": kind,
                    "spans": [[span.start_s, span.end_s] for span in spans],
                    "options": asdict(options),
                }
                answers, failure = _ask(process, request, self._timeout_s)
                yield _decoded(answers, failure, len(spans), data)
        finally:
            self._free.put(process)


def _ask(process: ChildProcess, request: dict[str, Any], timeout_s: float) -> tuple[list[dict[str, Any]], str | None]:
    """The answers to a request, and why there are no more of them; None if they are complete."""
    answers: list[dict[str, Any]] = []
    try:
        with process.answers(request, timeout_s) as stream:
            while line := stream.readline():
                answer = json.loads(line)
                if answer.get("end"):
                    return answers, None
                answers.append(answer)
    except (OSError, ValueError):
        pass  # a process that breaks off or writes no JSON counts as crashed
    process.close()
    return answers, "decode_timeout" if process.timed_out else "decoder_crashed"


def _decoded(answers: Sequence[dict[str, Any]], failure: str | None, count: int, data: Path) -> Decoded:
    clips: dict[int, CutClip] = {}
    facts: FileFacts | None = None
    problem, detail = failure, "its process ended before the clip was cut"
    for answer in answers:
        if SETUP_ERROR in answer:
            raise UserError(str(answer[SETUP_ERROR]))
        if "facts" in answer:
            facts = FileFacts(**answer["facts"])
        elif "file_problem" in answer:
            problem, detail = str(answer["file_problem"]), str(answer["detail"])
        else:
            members = tuple(Member(*member) for member in answer.pop("members", ()))
            number = int(answer.pop("clip"))
            clips[number] = CutClip(members=members, **answer | {"times_s": tuple(answer.get("times_s", ()))})
    missing_clip = CutClip(problem=problem or "undecodable", detail=detail)
    if failure == "decode_timeout":
        missing_clip = CutClip(problem=failure, detail="decoding took longer than clips.decode_timeout_s")
    return Decoded([clips.get(number, missing_clip) for number in range(count)], data, facts)
