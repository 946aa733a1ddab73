"""Failed runs and checks reach people: once, by names and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from mmdata.observe import alerts as delivery
from pipelines.alert_sensor import TargetState, alerts
from pipelines.definitions import defs
from pipelines.instance import open_instance
from pipelines.resources import CorpusResource
from tests.support.standin_stages import Small


class Listener:
    """What the command of corpus.yaml was given."""

    def __init__(self, small: Small) -> None:
        self.folder = small.folder
        self.cursor: str | None = None
        self.skip_reason = ""

    @property
    def heard(self) -> list[dict[str, Any]]:
        path = self.folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def tick(self, instance: dg.DagsterInstance) -> list[str]:
        """Let the sensor look once; what was told by it."""
        before = sum(len(one["happenings"]) for one in self.heard)
        context = dg.build_sensor_context(
            instance=instance, cursor=self.cursor, resources={"corpus": CorpusResource()}, sensor_name="alerts"
        )
        result = alerts(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor, self.skip_reason = result.cursor, str(result.skip_reason)
        return [one["what"] for message in self.heard for one in message["happenings"]][before:]


@pytest.fixture
def told(small: Small, monkeypatch: pytest.MonkeyPatch) -> Listener:
    monkeypatch.setattr(delivery.time, "sleep", lambda _: None)
    listen(small, "run_failure, check_failure, recovery")
    return Listener(small)


@pytest.fixture
def kept(small: Small) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, as the daemon has it."""
    with open_instance(small.workspace) as made:
        yield made


def listen(small: Small, tell: str, command: str = "(cat; echo) >> {}/told") -> None:
    text = small.config_path.read_text(encoding="utf-8").split("alerts:")[0]
    section = {"command": command.format(small.folder)}
    small.config_path.write_text(f"{text}alerts: {{tell: [{tell}], command: {json.dumps(section['command'])}}}\n")


def run(instance: dg.DagsterInstance, job: str, part: str | None = None) -> bool:
    return (
        defs.resolve_job_def(job)
        .execute_in_process(instance=instance, partition_key=part, raise_on_error=False)
        .success
    )


def test_a_failed_part_is_told_once_and_so_is_its_recovery(
    small: Small, told: Listener, kept: dg.DagsterInstance
) -> None:
    small.write("a.txt", "a secret caption, boom")
    run(kept, "refresh_catalog")
    assert told.tick(kept) == []
    assert not run(kept, "build_part", "web-000000")
    assert told.tick(kept) == ["build_part failed in media"]
    assert told.tick(kept) == []
    assert not run(kept, "build_part", "web-000000")  # the same again
    assert told.tick(kept) == []
    run(kept, "refresh_catalog")  # the standing check sees it, too
    assert told.tick(kept) == ["check source_catalog/no_failed_parts failed"]
    assert "secret" not in json.dumps(told.heard)
    assert "example.org" not in json.dumps(told.heard)
    small.write("a.txt", "mended")
    run(kept, "refresh_catalog")
    assert told.tick(kept) == ["check source_catalog/no_failed_parts passes again"]


def test_a_blocking_check_that_fails_is_told_with_its_numbers(
    small: Small, told: Listener, kept: dg.DagsterInstance
) -> None:
    small.write("b.txt", "gone", "gone too")
    run(kept, "refresh_catalog")
    assert not run(kept, "build_part", "web-000001")
    assert "check media/download_share failed" in told.tick(kept)
    failed = next(one for one in told.heard[0]["happenings"] if one["occasion"] == "check_failure")
    assert failed["part"] == "web-000001"
    assert failed["numbers"]["success_share"] == 0


def test_what_could_not_be_delivered_is_told_later(small: Small, told: Listener, kept: dg.DagsterInstance) -> None:
    small.write("a.txt", "boom")
    run(kept, "refresh_catalog")
    assert not run(kept, "build_part", "web-000000")
    listen(small, "run_failure", command="exit 7")
    assert told.tick(kept) == []
    assert "ended with code 7; the next tick tries again" in told.skip_reason
    listen(small, "run_failure")
    assert told.tick(kept) == ["build_part failed in media"]


def test_only_what_was_asked_for_is_told(small: Small, told: Listener, kept: dg.DagsterInstance) -> None:
    listen(small, "check_failure")
    small.write("a.txt", "boom")
    run(kept, "refresh_catalog")
    assert not run(kept, "build_part", "web-000000")
    assert told.tick(kept) == []


def test_a_failure_that_lasts_is_told_again_after_a_day(small: Small) -> None:
    failure = delivery.Happening(
        "run_failure", "run:publish_release:", "publish_release failed", "publish_release", "0"
    )
    known, settings = TargetState(), small.corpus.alerts
    assert known.take_new([failure], settings, now=0.0) == [failure]
    assert known.take_new([failure], settings, now=3600.0) == []
    assert known.take_new([failure], settings, now=86_400.0) == [failure]


def test_nothing_is_read_where_nobody_is_to_be_told(small: Small, kept: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance=kept, resources={"corpus": CorpusResource()}, sensor_name="alerts")
    result = alerts(context)
    assert isinstance(result, dg.SkipReason)
    assert "neither a webhook nor a command" in str(result.skip_message)
