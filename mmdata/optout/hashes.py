"""The opt-out of a workspace: hashes of all entries of its standing lists and of everything that was forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import pyarrow as pa
from upath import UPath

from mmdata.documents import DOCUMENT, picture_urls
from mmdata.errors import DataError
from mmdata.optout.forget_log import Entry, forgotten_path, read_log
from mmdata.optout.selectors import HASH_BYTES, KINDS, Kind, Selector, hash_of, hashes_of_url
from mmdata.optout.state import opt_out_digest, standing_path, standing_table
from mmdata.storage.tables import read_table, write_table
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace

SCHEMA = pa.schema([pa.field("kind", pa.string(), nullable=False), pa.field("hash", pa.binary(16), nullable=False)])
"""A table of hashes, sorted by both columns."""

COVERING = ("uid", "url", "expected_sha256", "kind", "extra")
"""The columns of the rows table that say whether a row is left out."""

_DTYPE = f"S{HASH_BYTES}"


@dataclass(frozen=True, slots=True)
class OptOut:
    """The samples to leave out, as sorted hashes, 16 bytes per entry."""

    digest: str = ""  # identifies this state, see `opt_out_digest`
    hashes: Mapping[Kind, np.ndarray] = field(default_factory=dict)  # kind -> sorted hashes, S16 (n,)

    def pardons_since(self, digest: str) -> bool:
        """Whether an entry may have been removed since the state with that digest."""
        return digest.partition("-")[0] not in ("", self.digest.partition("-")[0])

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that have entries."""
        return frozenset(kind for kind, hashes in self.hashes.items() if len(hashes))

    def holds(self, kind: Kind, hashes: Sequence[bytes]) -> np.ndarray:
        """Which hashes are entries, bool (n,)."""
        entries = self.hashes.get(kind)
        if entries is None or not len(entries) or not len(hashes):
            return np.zeros(len(hashes), bool)
        queries = np.array(hashes, _DTYPE)
        positions = np.minimum(np.searchsorted(entries, queries), len(entries) - 1)
        return np.asarray(entries[positions] == queries)

    def covers_rows(self, rows: pa.Table) -> np.ndarray:
        """Which rows to leave out for their uid, URL, domain or the SHA-256 given by the source, bool (n,).

        A document goes for the URL of its page and for that of any of its pictures.

        Args:
            rows: a table with the columns of `COVERING`.
        """
        by_url = np.zeros(rows.num_rows, bool)
        kinds = self.kinds & {"url", "domain"}
        queries: dict[Kind, tuple[list[int], list[bytes]]] = {kind: ([], []) for kind in kinds}
        for row, urls in enumerate(_urls_of_rows(rows) if kinds else ()):
            for kind, digest in (found for url in urls for found in hashes_of_url(url, kinds)):
                queries[kind][0].append(row)
                queries[kind][1].append(digest)
        for kind, (row_numbers, digests) in queries.items():
            by_url[np.array(row_numbers, np.int64)[self.holds(kind, digests)]] = True
        return by_url | self.covers_uids(rows["uid"]) | self.covers_content(rows["expected_sha256"])

    def covers_uids(self, uids: pa.ChunkedArray) -> np.ndarray:
        """Which uids are entries, bool (n,)."""
        return self._covers("uid", uids.to_pylist())

    def covers_content(self, sha256s: pa.ChunkedArray) -> np.ndarray:
        """Which SHA-256 of files are entries, bool (n,); False for null."""
        return self._covers("sha256", [sha256.lower() if sha256 else None for sha256 in sha256s.to_pylist()])

    def covers_file(self, sha256: str | None) -> bool:
        """Whether the SHA-256 of a file is an entry."""
        return bool(sha256) and bool(self._covers("sha256", [sha256])[0])

    def _covers(self, kind: Kind, values: Sequence[str | None]) -> np.ndarray:
        covered = np.zeros(len(values), bool)
        if kind in self.kinds:
            rows = [row for row, value in enumerate(values) if value]
            covered[rows] = self.holds(kind, [hash_of(kind, values[row] or "") for row in rows])
        return covered


NO_OPT_OUT = OptOut()


def _urls_of_rows(rows: pa.Table) -> Iterator[list[str]]:
    """The URLs of each row: its own, and those of a document's pictures."""
    is_document = [kind == DOCUMENT for kind in rows["kind"].to_pylist()]
    extras = rows["extra"].to_pylist() if any(is_document) else repeat(None)
    for url, has_pictures, extra in zip(rows["url"].to_pylist(), is_document, extras, strict=False):
        yield [*([url] if url else []), *(picture_urls(extra) if has_pictures else [])]


def opt_out_of(selectors: Iterable[Selector]) -> OptOut:
    """An opt-out with these selectors only."""
    return OptOut("asked", _sorted((selector.kind, selector.hash()) for selector in selectors))


def load_opt_out(workspace: Workspace) -> OptOut:
    """The opt-out of a workspace at this moment.

    Raises:
        DataError: the log has been tampered with, or a table of hashes is missing or has other content than recorded.
    """
    entries: list[tuple[Kind, bytes]] = []
    standing = read_json(standing_path(workspace)) or {}
    if digest := standing.get("digest"):
        entries += read_hashes(standing_table(workspace, digest), digest)
    return OptOut(opt_out_digest(workspace), _sorted([*entries, *forgotten_hashes(workspace)]))


def forgotten_hashes(workspace: Workspace) -> set[tuple[Kind, bytes]]:
    """The hashes of everything that the log forgets. Raises DataError if a table of hashes was changed."""
    return {pair for _, hashes in _forgotten_tables(workspace) for pair in hashes}


def when_forgotten(workspace: Workspace, uid: str) -> Entry | None:
    """The first entry of the log that forgets the sample; None if the sample was not forgotten."""
    uid_hash = hash_of("uid", uid)
    return next((entry for entry, hashes in _forgotten_tables(workspace) if ("uid", uid_hash) in hashes), None)


def _forgotten_tables(workspace: Workspace) -> Iterator[tuple[Entry, list[tuple[Kind, bytes]]]]:
    for entry in read_log(workspace):
        if entry.what == "forget":
            yield entry, read_hashes(forgotten_path(workspace, entry.number), entry.hashes)


def hashes_digest(entries: Iterable[tuple[Kind, bytes]]) -> str:
    """SHA-256 over the sorted, distinct entries, cut to 16 hex digits."""
    digest = hashlib.sha256()
    for kind, entry_hash in sorted(set(entries)):
        digest.update(f"{kind} ".encode() + entry_hash)
    return digest.hexdigest()[:16]


def write_hashes(path: UPath, entries: Iterable[tuple[Kind, bytes]]) -> None:
    """Publish a table of hashes."""
    rows = [{"kind": kind, "hash": entry_hash} for kind, entry_hash in sorted(set(entries))]
    write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA))


def read_hashes(path: UPath, digest: str) -> list[tuple[Kind, bytes]]:
    """The entries of a table of hashes. Raises DataError if it is missing or has another digest."""
    try:
        table = read_table(path)
    except DataError as error:
        raise DataError(f"{path}: the opt-out hashes cannot be read ({error}). {_REMEDY}") from None
    entries = list(zip(table["kind"].to_pylist(), table["hash"].to_pylist(), strict=True))
    if hashes_digest(entries) != digest:
        raise DataError(f"{path}: is not the table of hashes that was signed off. {_REMEDY}")
    return entries


_REMEDY = (
    "Nothing is built, so that no opted-out sample returns. Remedy: restore the folder takedown/ from a copy; "
    "or delete takedown/standing.json: `mmdata build --sources-only` reads the lists again."
)


def _sorted(entries: Iterable[tuple[Kind, bytes]]) -> dict[Kind, np.ndarray]:
    by_kind: dict[Kind, set[bytes]] = {kind: set() for kind in KINDS}
    for kind, entry_hash in entries:
        by_kind[kind].add(entry_hash)
    return {kind: np.sort(np.array(sorted(hashes), _DTYPE)) for kind, hashes in by_kind.items()}
