"""A Python child process that answers requests given as JSON lines, and is killed if an answer takes too long.

Decoders and the speech synthesiser run in such processes, because their libraries may crash or hang.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any


class ChildProcess:
    """Runs `python -m module`; starts it with the first request, and again after it has ended. One request at a time.

    Args:
        module: the module to run. It reads requests from stdin and writes answers to stdout.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self.timed_out = False  # the last request was ended by its time limit

    @property
    def pid(self) -> int | None:
        """The id of the process; None if it has not been started or was closed."""
        return None if self._process is None else self._process.pid

    @contextmanager
    def answers(self, request: dict[str, Any], timeout_s: float) -> Iterator[IO[bytes]]:
        """Send a request; the stream gives the answer. The process is killed when the block takes too long.

        Raises:
            OSError: the process has ended.
        """
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", self._module]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        self.timed_out = False

        def kill_late_process() -> None:
            self.timed_out = True
            process.kill()

        killer = threading.Timer(timeout_s, kill_late_process)
        killer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            yield process.stdout
        finally:
            killer.cancel()

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()
            self._process.communicate()
            self._process = None
