"""Alerts: the messages that people get when something fails, and their delivery.

An alert holds only names and numbers of mmdata's own; texts of errors may quote captions or URLs and stay in the run's
log. Errors of delivery name no URL either, because a webhook's URL is a secret.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from mmdata.config.observe import Alerts, Occasion
from mmdata.display import printable

MAX_ATTEMPTS = 3
MAX_LISTED = 10
"""How many events one message lists; the rest are only counted."""

Target = Literal["webhook", "command"]


class NotDelivered(Exception):
    """A target did not accept an alert. The text holds no secret."""


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that people should know of.

    Args:
        state: the thing that failed, such as `check:source_catalog/no_failed_parts`; reported once, not at every tick.
        what: the failure; another failure of the same state is reported at once.
        job, part, run_id: of the run that ended.
        numbers: figures of the failure.
    """

    occasion: Occasion
    state: str
    what: str
    job: str
    run_id: str
    part: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def targets(alerts: Alerts) -> list[Target]:
    """The targets that are configured."""
    named: list[Target] = []
    if alerts.webhook_env or alerts.webhook_file:
        named.append("webhook")
    if alerts.command:
        named.append("command")
    return named


def message(happenings: Sequence[Happening], corpus: str, ui_url: str | None = None) -> dict[str, Any]:
    """The alert as JSON: `text` for Slack and similar services, and the same as fields for programs."""
    lines = [_line(happening, ui_url) for happening in happenings[:MAX_LISTED]]
    if more := len(happenings) - MAX_LISTED:
        lines += [f"… and {more:,} more"] if more > 0 else []
    listed = [{**asdict(happening), "numbers": dict(happening.numbers)} for happening in happenings[:MAX_LISTED]]
    return {
        "text": "\n".join([f"mmdata, {printable(corpus)}:", *lines]),
        "corpus": corpus,
        "count": len(happenings),
        "happenings": listed,
    }


def deliver(alerts: Alerts, target: Target, body: Mapping[str, Any]) -> None:
    """Deliver an alert to a target, in up to three attempts.

    Raises:
        NotDelivered: every attempt failed; says why, without the URL and the target's answer.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            return _post(alerts, body) if target == "webhook" else _execute(alerts, body)
        except NotDelivered:
            if attempt == MAX_ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)
    return None


def _line(happening: Happening, ui_url: str | None) -> str:
    numbers = ", ".join(f"{name} {value:,g}" for name, value in happening.numbers.items())
    where = f" (part {happening.part})" if happening.part else ""
    run_id = happening.run_id
    link = f" {ui_url.rstrip('/')}/runs/{run_id}" if ui_url else f" run {run_id[:8]}"
    return printable(f"• {happening.what}{where}{': ' + numbers if numbers else ''};{link}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects, so that the message and the secret in the webhook's URL reach no other server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(alerts: Alerts, body: Mapping[str, Any]) -> None:
    url = _webhook(alerts)
    try:
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "mmdata"}
        )
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=alerts.timeout_s) as answer:
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise NotDelivered(f"the webhook answered {answer.status}")
    except urllib.error.HTTPError as error:
        raise NotDelivered(f"the webhook answered {error.code}") from None
    except (OSError, ValueError) as error:  # their texts may hold the URL
        raise NotDelivered(f"the webhook cannot be reached ({type(error).__name__})") from None


def _webhook(alerts: Alerts) -> str:
    if alerts.webhook_file:
        try:
            url = Path(alerts.webhook_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise NotDelivered(f"alerts.webhook_file {alerts.webhook_file}: {type(error).__name__}") from None
    else:
        url = os.environ.get(alerts.webhook_env or "", "").strip()
        if not url:
            raise NotDelivered(f"the environment variable {alerts.webhook_env} (alerts.webhook_env) is not set")
    if not url.startswith(("https://", "http://")):
        raise NotDelivered("the webhook's URL is neither https:// nor http://")
    return url


def _execute(alerts: Alerts, body: Mapping[str, Any]) -> None:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", alerts.command or ""],
            input=json.dumps(body).encode(),
            timeout=alerts.timeout_s,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"alerts.command took over {alerts.timeout_s:g} s") from None
    except OSError as error:
        raise NotDelivered(f"alerts.command did not start ({type(error).__name__})") from None
    if done.returncode:
        raise NotDelivered(f"alerts.command ended with code {done.returncode}")
