"""Fixtures that fetch from a server on loopback."""

from __future__ import annotations

from tests.support.fetching import _img2dataset_is_loaded, certificates, handmade, settings, web  # noqa: F401 - fixtures
