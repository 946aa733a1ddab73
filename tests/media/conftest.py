"""Fixtures: films that tests share, and what fetching needs."""

from __future__ import annotations

from tests.support.cutting import made  # noqa: F401 - a fixture
from tests.support.decoding import film  # noqa: F401 - a fixture
from tests.support.fetching import _img2dataset_is_loaded  # noqa: F401 - a fixture
