"""The opt-out of a workspace: hashes of all that its standing lists name and of all that was forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from upath import UPath

from mmdata.errors import DataError
from mmdata.optout.forget_log import Entry, forgotten_path, read_log
from mmdata.optout.selectors import HASH_BYTES, KINDS, Kind, Selector, hash_of, hashes_of_url
from mmdata.optout.state import opt_out_digest, standing_path, standing_table
from mmdata.storage.tables import read_table, write_table
from mmdata.workspace.layout import Workspace, read_json

SCHEMA = pa.schema([pa.field("kind", pa.string(), nullable=False), pa.field("hash", pa.binary(16), nullable=False)])
"""A table of hashes, sorted by both columns."""

_DTYPE = f"S{HASH_BYTES}"


@dataclass(frozen=True, slots=True)
class OptOut:
    """What is to be left out, as sorted hashes: 16 bytes an entry in memory.

    Args:
        digest: names this state, as `opt_out_digest` gives it.
    """

    digest: str = ""
    hashes: Mapping[Kind, np.ndarray] = field(default_factory=dict)

    def pardons_since(self, digest: str) -> bool:
        """Whether an entry may have been taken out since the state of that digest."""
        return digest.partition("-")[0] not in ("", self.digest.partition("-")[0])

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that it has entries of."""
        return frozenset(kind for kind, known in self.hashes.items() if len(known))

    def holds(self, kind: Kind, hashes: Sequence[bytes]) -> np.ndarray:
        """Which hashes are entries, bool (n,)."""
        known = self.hashes.get(kind)
        if known is None or not len(known) or not len(hashes):
            return np.zeros(len(hashes), bool)
        asked = np.array(hashes, _DTYPE)
        places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        return np.asarray(known[places] == asked)

    def covers_rows(self, rows: pa.Table) -> np.ndarray:
        """Which rows are to be left out by uid, URL, domain or the SHA-256 that the source gives, bool (n,).

        Args:
            rows: uid, url, expected_sha256.
        """
        by_place = np.zeros(rows.num_rows, bool)
        kinds = self.kinds
        if kinds & {"url", "domain"}:
            asked: dict[Kind, tuple[list[int], list[bytes]]] = {"url": ([], []), "domain": ([], [])}
            for row, url in enumerate(rows["url"].to_pylist()):
                for kind, digest in hashes_of_url(url, kinds) if url else ():
                    asked[kind][0].append(row)
                    asked[kind][1].append(digest)
            for kind, (at, digests) in asked.items():
                by_place[np.array(at, np.int64)[self.holds(kind, digests)]] = True
        return by_place | self.covers_uids(rows["uid"]) | self.covers_content(rows["expected_sha256"])

    def covers_uids(self, uids: pa.ChunkedArray) -> np.ndarray:
        """Which uids are entries, bool (n,)."""
        return self._covers("uid", uids.to_pylist())

    def covers_content(self, sha256s: pa.ChunkedArray) -> np.ndarray:
        """Which SHA-256 of files are entries, bool (n,); null is none."""
        return self._covers("sha256", [one.lower() if one else None for one in sha256s.to_pylist()])

    def covers_file(self, sha256: str | None) -> bool:
        """Whether a file's SHA-256 is an entry."""
        return bool(sha256) and bool(self._covers("sha256", [sha256])[0])

    def _covers(self, kind: Kind, values: Sequence[str | None]) -> np.ndarray:
        found = np.zeros(len(values), bool)
        if kind in self.kinds:
            at = [row for row, value in enumerate(values) if value]
            found[at] = self.holds(kind, [hash_of(kind, values[row] or "") for row in at])
        return found


NOTHING = OptOut()


def opt_out_of(selectors: Iterable[Selector]) -> OptOut:
    """The opt-out that holds just these selectors."""
    return OptOut("asked", _sorted((one.kind, one.hash()) for one in selectors))


def load_opt_out(workspace: Workspace) -> OptOut:
    """What a workspace leaves out.

    Raises:
        DataError: the log has been tampered with, or a table of hashes is missing or is not the one that is named.
    """
    entries: list[tuple[Kind, bytes]] = []
    standing = read_json(standing_path(workspace)) or {}
    if digest := standing.get("digest"):
        entries += read_hashes(standing_table(workspace, digest), digest)
    return OptOut(opt_out_digest(workspace), _sorted([*entries, *forgotten_hashes(workspace)]))


def forgotten_hashes(workspace: Workspace) -> set[tuple[Kind, bytes]]:
    """All that the log forgets. Raises DataError where a table of hashes is not as it was signed."""
    tables = [
        read_hashes(forgotten_path(workspace, entry.number), entry.hashes)
        for entry in read_log(workspace)
        if entry.what == "forget"
    ]
    return {one for table in tables for one in table}


def when_forgotten(workspace: Workspace, uid: str) -> Entry | None:
    """The first entry of the log that forgets a sample; None: none does."""
    asked = ("uid", hash_of("uid", uid))
    for entry in read_log(workspace):
        if entry.what == "forget" and asked in read_hashes(forgotten_path(workspace, entry.number), entry.hashes):
            return entry
    return None


def hashes_digest(entries: Iterable[tuple[Kind, bytes]]) -> str:
    """SHA-256 over sorted, distinct entries: 16 hex digits."""
    digest = hashlib.sha256()
    for kind, one in sorted(set(entries)):
        digest.update(f"{kind} ".encode() + one)
    return digest.hexdigest()[:16]


def write_hashes(path: UPath, entries: Iterable[tuple[Kind, bytes]]) -> None:
    """Publish a table of hashes."""
    ordered = sorted(set(entries))
    write_table(path, pa.table([[kind for kind, _ in ordered], [one for _, one in ordered]], schema=SCHEMA))


def read_hashes(path: UPath, digest: str) -> list[tuple[Kind, bytes]]:
    """The entries of a table of hashes. Raises DataError where it is not there or is not the one of this digest."""
    try:
        table = read_table(path)
    except DataError as error:
        raise DataError(f"{path}: what is to be left out cannot be read ({error}). {_REMEDY}") from None
    entries = list(zip(table["kind"].to_pylist(), table["hash"].to_pylist(), strict=True))
    if hashes_digest(entries) != digest:
        raise DataError(f"{path}: is not the table of hashes that was signed off. {_REMEDY}")
    return entries


_REMEDY = (
    "Nothing is built, so that nothing comes back. Remedy: restore the folder takedown/ from a copy; "
    "a standing list is read again by materialising `source_catalog`."
)


def _sorted(entries: Iterable[tuple[Kind, bytes]]) -> dict[Kind, np.ndarray]:
    by_kind: dict[Kind, set[bytes]] = {kind: set() for kind in KINDS}
    for kind, one in entries:
        by_kind[kind].add(one)
    return {kind: np.sort(np.array(sorted(found), _DTYPE)) for kind, found in by_kind.items()}
