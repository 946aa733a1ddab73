"""Which ports media may be fetched from."""

from __future__ import annotations

import pytest

from mmdata.web.ports import SERVICE_PORTS, port_refusal


@pytest.mark.parametrize(
    ("port", "ports", "allowed", "accepted"),
    [
        (80, None, False, True),
        (443, None, False, True),
        (8080, None, False, True),
        (1023, None, False, False),
        (1023, None, True, True),
        (8080, [80, 443], False, False),
        (8080, [80, 443], True, True),
        (81, [81], False, True),
        (6379, [6379], False, False),
        (6379, None, True, False),
        (22, None, True, False),
        (0, None, True, False),
    ],
)
def test_which_ports_are_accepted(port, ports, allowed, accepted):
    assert (port_refusal(port, ports, allowed) is None) == accepted


def test_no_service_port_is_an_ephemeral_port():
    """The demo's server listens on such a port."""
    assert not any(32768 <= port < 50000 for port in SERVICE_PORTS)
