"""The command `ui`: the corpus in Dagster's web interface."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmdata.cli import options
from mmdata.errors import UserError


def ui(
    config: options.ConfigOption = options.CONFIG,
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the web server.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anyone who can reach it can run the graph.")
    ] = "127.0.0.1",
    log_format: options.LogFormatOption = None,
    log_level: options.LogLevelOption = None,
    metrics_port: options.MetricsPortOption = None,
) -> None:
    """Open the corpus in the Dagster UI.

    The UI shows the graph with its figures and pictures, and starts runs by a click. While it runs, the nightly
    schedules and the sensor that builds new parts run too; its Automation page turns them off.
    """
    options.log_as(log_format, log_level)
    raise typer.Exit(run_ui(config, port, host, metrics_port))


def run_ui(config: Path, port: int, host: str = "127.0.0.1", metrics_port: int | None = None) -> int:
    """Serve the UI until it is stopped; returns its exit code."""
    from mmdata.observe.metrics_files import gathered
    from pipelines.home import dagster_home
    from pipelines.instance import open_instance

    corpus, workspace = options.open_corpus(config)
    _require_free(host, port)
    open_instance(workspace).dispose()  # this sets the sizes of the pools
    home = dagster_home(workspace)
    environment = os.environ | {"DAGSTER_HOME": str(home), "MMDATA_CONFIG": str(config.absolute())}
    no_hint = "ignore:Function `dev_command`"  # it advises `dg dev`, which needs a project laid out in its own way
    server = ["dagster", "dev", "-m", "pipelines.definitions", "-p", str(port), "-h", host]
    command = [sys.executable, "-W", no_hint, "-m", *server]
    typer.echo(f"the UI opens at http://{host}:{port} in some seconds; Ctrl-C stops it. Runs are kept in {home}")
    # Not in the folder of the corpus: Dagster would read a pyproject.toml or a .env there.
    with gathered(options.observed(corpus, metrics_port), home / "metrics") as metrics_environment:
        return run_until_stopped(command, environment | metrics_environment, home)


def _require_free(host: str, port: int) -> None:
    """Raises UserError if the address cannot be listened on: Dagster would run on, without its web server."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.create_server(address[:2], family=family):
            pass
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({os.strerror(error.errno or 0)}). Remedy: give another --port, or "
            "stop the program that uses it (perhaps another `mmdata ui`)."
        ) from None


def run_until_stopped(command: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run a server, pass signals on to it, and return its exit code."""
    # It gets a session of its own, so that Ctrl-C in a terminal reaches it once, through this process, and not twice.
    process = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)

    def stop(*_: object) -> None:
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
