"""Section `alerts`: secrets stay out of corpus.yaml."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmdata.config import Alerts


def test_the_webhook_is_named_by_a_variable_and_never_written_down() -> None:
    assert Alerts(webhook_env="MMDATA_ALERT_WEBHOOK").webhook_env == "MMDATA_ALERT_WEBHOOK"
    with pytest.raises(ValidationError, match="the name of an environment variable, not the URL itself"):
        Alerts(webhook_env="https://hooks.example.org/secret")
