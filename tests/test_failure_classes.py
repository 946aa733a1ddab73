"""The groups of error classes."""

from __future__ import annotations

import urllib.error
from email.message import Message

import pytest

from mmdata.failure_classes import BLOCKS, HOST_FAULTS, RATE_LIMIT_CODES, TEMPORARY_CODES
from mmdata.web.failures import as_fetch_error


@pytest.mark.parametrize("code", sorted(RATE_LIMIT_CODES | TEMPORARY_CODES))
def test_a_code_of_either_group_may_pass_and_a_rate_limit_is_a_block(code: int) -> None:
    failure = as_fetch_error(urllib.error.HTTPError("http://a/", code, "Busy", Message(), None))
    assert failure.may_pass
    assert (failure.error in BLOCKS) == (code in RATE_LIMIT_CODES)


def test_no_class_is_a_block_and_a_fault_of_the_host() -> None:
    assert not BLOCKS & HOST_FAULTS
