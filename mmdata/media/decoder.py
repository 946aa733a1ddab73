"""Decoding in processes of their own, which may crash or be killed for time without taking a part with them.

A process takes one request a line (JSON) and answers a line a clip as soon as it is cut; the clips' bytes lie in a file
that both know. Nothing is unpickled: what decodes hostile files could write anything.
"""

from __future__ import annotations

import json
import queue
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from mmdata.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmdata.media.clip import Look
    from mmdata.media.container import Facts, Limits
    from mmdata.media.cutting import Span

MEMORY_BYTES = 6 << 30  # of address space of a process
SETUP_FAILED = "setup"  # the answer of a process that lacks a package


@dataclass(frozen=True, slots=True)
class Member:
    """Bytes of a clip in the decoder's file."""

    ext: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CutClip:
    """A clip, or why it is none. See `mmdata.media.clip.Cut`."""

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


@dataclass
class Decoded:
    """What became of a file.

    Args:
        clips: one a span, in their order.
        data: the file that their members lie in.
        facts: of the file; None where it could not be opened.
    """

    clips: list[CutClip]
    data: Path
    facts: dict[str, Any] | None = None


class DecoderPool:
    """Processes that decode, each started when it is needed and again when it has died; a context manager.

    Args:
        count: processes; 0: one a core.
        timeout_s: of decoding one file.
    """

    def __init__(self, count: int, timeout_s: float) -> None:
        from mmdata.media.cores import cores

        self._timeout_s = timeout_s
        self._free: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        self._all = [_Decoder() for _ in range(count or cores())]
        for one in self._all:
            self._free.put(one)

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._all:
            one.close()

    @contextmanager
    def decode(self, path: Path, kind: str, spans: Sequence[Span], look: Look, limits: Limits) -> Iterator[Decoded]:
        """Cut spans out of a file; what it gives is there within the block. Blocks until a process is free.

        What a process that dies or takes too long has finished is kept; the rest has the problem `decoder_crashed` or
        `decode_timeout`.

        Raises:
            UserError: a package that decoding needs is not installed.
        """
        decoder = self._free.get()
        try:
            with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
                request = {
                    "path": str(path),
                    "out": str(Path(folder) / "clips"),
                    "kind": kind,
                    "spans": [[span.start_s, span.end_s] for span in spans],
                    "look": asdict(look),
                    "limits": asdict(limits),
                }
                answers, ended = decoder.ask(request, self._timeout_s)
                yield _gathered(answers, ended, len(spans), Path(folder) / "clips")
        finally:
            self._free.put(decoder)


@dataclass
class _Decoder:
    """One process, and the conversation with it."""

    _child: subprocess.Popen[bytes] | None = field(default=None)
    _late: bool = False

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[list[dict[str, Any]], str | None]:
        """The answers to a request, and why there are no more of them; None: they are all there."""
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        self._late = False
        killer = threading.Timer(timeout_s, self._kill_late)
        killer.start()
        answers: list[dict[str, Any]] = []
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            while line := child.stdout.readline():
                answer = json.loads(line)
                if answer.get("end"):
                    return answers, None
                answers.append(answer)
        except (OSError, ValueError):
            pass  # as if it had ended
        finally:
            killer.cancel()
        self.close()
        return answers, "decode_timeout" if self._late else "decoder_crashed"

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            with suppress(OSError):
                self._child.kill()
            self._child.communicate()
            self._child = None

    def _kill_late(self) -> None:
        self._late = True
        if self._child is not None:
            self._child.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            command = [sys.executable, "-m", "mmdata.media.decoder"]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child


def _gathered(answers: Sequence[dict[str, Any]], ended: str | None, count: int, data: Path) -> Decoded:
    found: dict[int, CutClip] = {}
    facts: dict[str, Any] | None = None
    problem, detail = ended, "its process ended before the clip was cut"
    for answer in answers:
        if SETUP_FAILED in answer:
            raise UserError(str(answer[SETUP_FAILED]))
        if "facts" in answer:
            facts = answer["facts"]
        elif "file_problem" in answer:
            problem, detail = str(answer["file_problem"]), str(answer["detail"])
        else:
            members = tuple(Member(*member) for member in answer.pop("members", ()))
            number = int(answer.pop("clip"))
            found[number] = CutClip(members=members, **answer | {"times_s": tuple(answer.get("times_s", ()))})
    rest = CutClip(problem=problem or "undecodable", detail=detail)
    if ended == "decode_timeout":
        rest = CutClip(problem=ended, detail="decoding took longer than clips.decode_timeout_s")
    return Decoded([found.get(number, rest) for number in range(count)], data, facts)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The process: cut what is asked for until there are no more requests."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in requests:
        for answer in _answers(json.loads(line), answers):
            _say(answers, answer)
        _say(answers, {"end": True})


def _answers(request: dict[str, Any], out: IO[bytes]) -> Iterator[dict[str, Any]]:
    from mmdata.media.clip import Cut, CutProblem, Look

    try:
        import av  # noqa: F401 - asked for here so that its absence is told with the remedy
        import cv2

        from mmdata.media.container import FileProblem, Limits
        from mmdata.media.cutting import Span, cut_file
    except ImportError:
        yield {SETUP_FAILED: "video and sound are decoded by PyAV. Remedy: pip install 'mmdata[video]'"}
        return
    cv2.setNumThreads(1)  # other processes have the other cores
    with Path(request["out"]).open("wb") as data:

        def done(number: int, cut: Cut | CutProblem) -> None:
            if isinstance(cut, CutProblem):
                _say(out, {"clip": number, "problem": cut.problem, "detail": cut.detail})
                return
            members = []
            for ext, content in cut.members.items():
                members.append((ext, data.tell(), len(content)))
                data.write(content)
            data.flush()
            told = {key: value for key, value in asdict(cut).items() if key != "members"}
            _say(out, {"clip": number, "members": members, **told})

        spans = [Span(*span) for span in request["spans"]]
        look, limits = Look(**request["look"]), Limits(**request["limits"])
        try:
            facts: Facts = cut_file(Path(request["path"]), request["kind"], spans, look, limits, done)
            yield {"facts": asdict(facts)}
        except FileProblem as problem:
            yield {"file_problem": problem.problem, "detail": problem.detail}
        except UserError as error:
            yield {SETUP_FAILED: str(error)}
        except MemoryError:
            yield {"file_problem": "bomb", "detail": f"decoding took more than {MEMORY_BYTES >> 30} GiB"}
        except Exception as error:  # noqa: BLE001 - whatever a hostile file brings about is that file's problem
            yield {"file_problem": "undecodable", "detail": f"{type(error).__name__}: {error}"[:500]}


def _say(out: IO[bytes], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    answers_to = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not be taken for an answer
    _serve(sys.stdin.buffer, answers_to)
