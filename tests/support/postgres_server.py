"""A PostgreSQL server on loopback for a test, from the binaries of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "of-a-test"


def postgres_binary(name: str) -> Path | None:
    """`initdb` and the like: where Debian puts them, or on PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # what it puts on PATH is a wrapper
    found = shutil.which(name)
    return kept[-1] if kept else (Path(found).resolve() if found else None)


@contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str]]:
    """A server in a folder of its own; gives the environment that dagster_home/postgres.yaml reads.

    PostgreSQL does not run as root: there, the server is the user `postgres`.
    """
    initdb, server, ready = (postgres_binary(name) for name in ("initdb", "postgres", "pg_isready"))
    assert initdb is not None
    assert server is not None
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder.mkdir(parents=True)
    if who:
        shutil.chown(folder, "postgres", "postgres")
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = folder / "data"
    make = [str(initdb), "-D", str(data), "-U", "dagster", "-A", "scram-sha-256", "--pwfile", str(secret), "-N"]
    subprocess.run(make, check=True, capture_output=True, cwd="/", **who)  # type: ignore[call-overload]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [str(server), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    process = subprocess.Popen(run, cwd="/", stderr=subprocess.DEVNULL, **who)  # type: ignore[call-overload]
    try:
        for _ in range(300):
            if (
                ready is None
                or subprocess.run(
                    [str(ready), "-q", "-h", "127.0.0.1", "-p", str(port), "-d", "postgres"], check=False
                ).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        yield {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(port),
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "DAGSTER_PG_DB": "postgres",
        }
    finally:
        process.terminate()
        process.wait(30)
