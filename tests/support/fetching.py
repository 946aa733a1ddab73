"""Fixtures: the hostile server, download settings with short time limits, and parts with given rows."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmdata.config import Download
from mmdata.download import images
from mmdata.web.guard import Guard, install
from tests.support.handmade import HandmadePart
from tests.support.hostile_server import HostileServer


@pytest.fixture(scope="session", autouse=True)
def _img2dataset_is_loaded() -> None:
    images.load_img2dataset(Download())


@pytest.fixture
def web() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def settings() -> Callable[..., Download]:
    """Makes download settings that allow loopback, with short time limits, and installs their guard."""

    def make(**changes: Any) -> Download:
        defaults = {"allow_hosts": ["127.0.0.0/8"], "timeout_s": 0.4, "deadline_s": 0.9, "retries": 0, "threads": 8}
        download = Download(**{**defaults, **changes})
        install(Guard(download))
        return download

    return make


@pytest.fixture
def handmade(tmp_path: Path) -> Callable[..., HandmadePart]:
    return lambda *slices, **download: HandmadePart(tmp_path, list(slices), **download)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> tuple[Path, Path]:
    """A self-signed certificate for pictures.example: (with key, without)."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(secret + pem)
    (folder / "ca.pem").write_bytes(pem)
    return folder / "both.pem", folder / "ca.pem"
