"""The hosts that are left alone because they blocked us, in `hosts.json`. Kept between runs, so that none asks on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from upath import UPath

from mmdata.storage.atomic import publish_json
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import Workspace

FORGOTTEN_AFTER = timedelta(days=90)
"""A pause that ended so long ago, and was not followed by a request, is dropped from the file."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A host that is left alone for a while.

    Args:
        host: `host:port` of its URLs, or the domain of a video site.
        reason: the error class of its answers, such as `http_429`.
        since, until: UTC ISO times. After `until` one URL is tried; its answer ends the pause or begins the next.
        times: how many pauses in a row.
    """

    host: str
    reason: str
    since: str
    until: str
    times: int

    def is_over(self, now: datetime) -> bool:
        """Whether the host may be asked again."""
        return datetime.fromisoformat(self.until) <= now


def read_pauses(workspace: Workspace) -> dict[str, Pause]:
    """Host -> its pause. A damaged file counts as empty: blocks are found out again."""

    def pauses(data: dict[str, Any]) -> dict[str, Pause]:
        read = [Pause(host=host, **values) for host, values in data.items()]
        return {pause.host: pause for pause in read if isinstance(pause.is_over(datetime.now(UTC)), bool)}

    return read_derived(_path(workspace), pauses) or {}


def write_pause(workspace: Workspace, pause: Pause) -> None:
    """Add a pause, or replace that of its host."""
    _publish(workspace, {**read_pauses(workspace), pause.host: pause})


def end_pause(workspace: Workspace, host: str) -> None:
    """Remove the pause of a host, because it answers again."""
    pauses = read_pauses(workspace)
    if pauses.pop(host, None) is not None:
        _publish(workspace, pauses)


def _publish(workspace: Workspace, pauses: Mapping[str, Pause]) -> None:
    """Write the file. If two processes write at once, a change may be lost: the host's next answer repeats it."""
    oldest = datetime.now(UTC) - FORGOTTEN_AFTER
    kept = sorted((pause for pause in pauses.values() if not pause.is_over(oldest)), key=lambda pause: pause.host)
    publish_json(_path(workspace), {values.pop("host"): values for values in map(asdict, kept)})


def _path(workspace: Workspace) -> UPath:
    return workspace.root / "hosts.json"
