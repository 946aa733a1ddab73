"""`mmdata ui`: signals and exit codes of the server that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path


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
