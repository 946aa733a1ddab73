"""An S3 of one's own: moto's server on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_bucket() -> Iterator[str]:
    """Give the URL of a workspace in a new bucket; the environment points at the server within the block."""
    pytest.importorskip("s3fs")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "*",
        }.items():
            environment.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"corpus-{port}-{secrets.token_hex(4)}"  # moto keeps its buckets for the life of the process
        s3fs.S3FileSystem().mkdir(name)
        try:
            yield f"s3://{name}/workspace"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()
