"""Decides which ports media may be fetched from: none of a service that a request could harm. Used by the guard."""

from __future__ import annotations

from collections.abc import Collection

WEB_PORTS = frozenset({80, 443})
FIRST_OPEN_PORT = 1024
"""From here on servers choose their ports freely: many serve pictures on 8080 and 8443."""

SERVICE_PORTS = {
    **{21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 110: "pop3", 111: "rpcbind", 139: "netbios"},
    **{143: "imap", 389: "ldap", 445: "smb", 465: "smtp", 587: "smtp", 993: "imap", 995: "pop3", 2049: "nfs"},
    **{1433: "sql server", 1521: "oracle", 1883: "mqtt", 2181: "zookeeper", 2375: "docker", 2376: "docker"},
    **{2379: "etcd", 2380: "etcd", 3306: "mysql", 3389: "rdp", 4369: "epmd", 5060: "sip", 5432: "postgres"},
    **{5672: "amqp", 5900: "vnc", 5984: "couchdb", 5985: "winrm", 5986: "winrm", 6000: "x11", 6379: "redis"},
    **{6443: "kubernetes", 6666: "irc", 6667: "irc", 8500: "consul", 8600: "consul", 9042: "cassandra"},
    **{9092: "kafka", 9200: "elasticsearch", 9300: "elasticsearch", 10250: "kubelet", 10255: "kubelet"},
    **{11211: "memcached", 15672: "rabbitmq", 27017: "mongodb", 27018: "mongodb", 50070: "hadoop"},
}
"""Refused even on allowed hosts: a redirect must not make us send a request to a database beside a mirror."""


def port_refusal(port: int, ports: Collection[int] | None, is_allowed_host: bool) -> str | None:
    """Why media may not be fetched from a port; None if they may.

    Args:
        ports: `download.ports`; None allows 80, 443 and all from 1024 on.
        is_allowed_host: the host is in `download.allow_hosts`: every port is allowed except `SERVICE_PORTS`.
    """
    if port in SERVICE_PORTS:
        return f"a port of another service ({SERVICE_PORTS[port]})"
    if is_allowed_host and port > 0:
        return None
    if ports is not None:
        return None if port in ports else "not in download.ports"
    return None if port in WEB_PORTS or port >= FIRST_OPEN_PORT else "a well-known port of another service"
