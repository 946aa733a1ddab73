"""A web server that counts, and corpora built from it, on a disk and on S3."""

from __future__ import annotations

from tests.takedown.conftest import corpus_on, root, web  # noqa: F401 - fixtures
