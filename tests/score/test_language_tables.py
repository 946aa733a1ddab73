"""The tables agree with what the two detectors know."""

from __future__ import annotations

import pytest

from mmdata.score.language_tables import ALSO_LATIN, RELATIVES, SCRIPTS, WEB_PERCENT
from mmdata.score.languages import _model

eldc = pytest.importorskip("eldc", reason="mmdata[score] is not installed")


def test_every_language_of_the_tables_is_one_that_a_detector_knows() -> None:
    known = set(_model()._langid.labels)
    assert set(WEB_PERCENT) <= known
    assert set(" ".join([*SCRIPTS.values(), ALSO_LATIN]).split()) <= known
    assert set(RELATIVES) <= known


def test_relatives_are_languages_that_eldc_knows() -> None:
    assert {near for nearest in RELATIVES.values() for near in nearest.split()} <= set(eldc.LANGUAGES)


def test_the_shares_of_the_web_leave_something_for_other_languages() -> None:
    assert 90 < sum(WEB_PERCENT.values()) < 100
