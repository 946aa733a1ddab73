"""Sections `observe` and `alerts`: ports and formats that are allowed, files beside corpus.yaml, no secrets in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mmdata.config import Alerts, Observe


def test_the_textfile_lies_beside_corpus_yaml(tmp_path: Path) -> None:
    observe = Observe.model_validate({"metrics_textfile": "mmdata.prom"}, context={"folder": tmp_path})
    assert observe.metrics_textfile == str(tmp_path / "mmdata.prom")


@pytest.mark.parametrize("wrong", [{"metrics_port": 0}, {"metrics_port": 65536}, {"log_format": "xml"}])
def test_a_port_and_a_format_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Observe.model_validate(wrong)


def test_the_webhook_is_named_by_a_variable_and_never_written_down() -> None:
    assert Alerts(webhook_env="MMDATA_ALERT_WEBHOOK").webhook_env == "MMDATA_ALERT_WEBHOOK"
    with pytest.raises(ValidationError, match="the name of an environment variable, not the URL itself"):
        Alerts(webhook_env="https://hooks.example.org/secret")
