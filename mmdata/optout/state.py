"""Identifies the state of a workspace's opt-out (its standing lists and its log). Reads two small files.

takedown/standing.json               the lists, the digest of their entries, how often an entry was removed
takedown/standing-<digest>.parquet   their entries: kind, hash
takedown/log.jsonl, takedown/forgotten/   see mmdata.optout.forget_log
"""

from __future__ import annotations

from upath import UPath

from mmdata.fingerprint import fingerprint
from mmdata.optout.forget_log import read_log
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

OPT_OUT = "opt_out"
"""The `problem` of a row, the `error` of media and the reason of a selection, if a sample is left out."""


def opt_out_digest(workspace: Workspace) -> str:
    """Identifies what a workspace leaves out at this moment; empty if it never left anything out.

    The number before the dash changes when an entry is removed from a list: its samples then return.

    Raises:
        DataError: the log has been tampered with.
    """
    standing = read_json(standing_path(workspace)) or {}
    forgotten = [entry.hashes for entry in read_log(workspace) if entry.what == "forget"]
    if not standing and not forgotten:
        return ""
    return f"{standing.get('taken_out', 0)}-{fingerprint('opt-out', standing.get('digest'), forgotten)}"


def standing_path(workspace: Workspace) -> UPath:
    """The state of the opt-out lists."""
    return workspace.root / "takedown" / "standing.json"


def standing_table(workspace: Workspace, digest: str) -> UPath:
    """The hashes of the entries of all opt-out lists."""
    return workspace.root / "takedown" / f"standing-{digest}.parquet"
