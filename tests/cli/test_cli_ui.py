"""`mmdata ui`: signals and exit codes of the server that it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmdata.cli.ui import run_ui
from mmdata.errors import UserError
from tests.cli.conftest import Released


def test_a_stop_signal_reaches_the_server_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    server = (
        "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(60)"
    )
    ours = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from mmdata.cli.ui import run_until_stopped
        sys.exit(run_until_stopped([sys.executable, "-c", {server!r}], dict(os.environ), Path({str(tmp_path)!r})))
    """)
    process = subprocess.Popen([sys.executable, "-c", ours], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 7


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_a_user_error_before_anything_starts(released: Released, host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{host}:{port} cannot be listened on .*Remedy: give another --port"):
            run_ui(released.config, port, host)
