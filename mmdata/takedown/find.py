"""Find what is to be forgotten: the samples that selectors mean, the releases that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mmdata.download.recordings import clip_sha256
from mmdata.optout.hashes import OptOut, opt_out_of
from mmdata.optout.selectors import Kind, Selector, hash_of
from mmdata.optout.state import REASON
from mmdata.storage.tables import read_table, scan_tables
from mmdata.takedown.parts import part_names, slice_names
from mmdata.urls import url_key
from mmdata.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class Hit:
    """A sample in a part.

    Args:
        url_key: what its URL is compared by; None: it has none.
        sha256: of its media; None: it has none.
    """

    uid: str
    part: str
    slice_name: str
    url_key: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What selectors come to.

    Args:
        hits: one a part that holds the sample.
        before: samples that they mean and that are forgotten already.
        releases: published releases whose selection names a sample, and how many: they hold it, or their report may
            show it.
    """

    selectors: Sequence[Selector]
    hits: Sequence[Hit]
    before: int
    releases: Mapping[str, int]

    @property
    def uids(self) -> set[str]:
        return {hit.uid for hit in self.hits}

    def by_part(self) -> dict[str, int]:
        """Part -> samples of it."""
        return dict(sorted(Counter(hit.part for hit in self.hits).items()))


def find(workspace: Workspace, selectors: Iterable[Selector]) -> Found:
    """Look through the tables of every part, removed ones included; reads nothing but columns of names and hashes.

    A SHA-256 also means the clips that were cut from that file.

    Raises:
        DataError: a table is damaged; names it.
    """
    asked = list(dict.fromkeys(selectors))
    files = [one.value for one in asked if one.kind == "sha256"]
    opt_out = opt_out_of(asked)
    hits: list[Hit] = []
    before: set[str] = set()
    for part in part_names(workspace):
        for name in slice_names(workspace, part, "rows"):
            columns = ["uid", "url", "expected_sha256", "problem", "start_s", "end_s"]
            rows = read_table(workspace.table(part, "rows", name), columns)
            media = _media(workspace, part, name)
            meant = opt_out.covers_rows(rows)
            for row, is_meant in zip(rows.to_pylist(), meant, strict=True):
                sha256 = media.get(row["uid"])
                if not is_meant and not _is_of(files, opt_out, sha256, row):
                    continue
                if row["problem"] == REASON and row["url"] is None:
                    before.add(row["uid"])
                else:
                    key = url_key(row["url"]) if row["url"] else None
                    hits.append(Hit(row["uid"], part, name, key, sha256))
    return Found(asked, hits, len(before), holders(workspace, {hit.uid for hit in hits} | before))


def holders(workspace: Workspace, uids: set[str]) -> dict[str, int]:
    """The published releases whose selection names some of these samples, and how many."""
    found = {}
    for release in workspace.releases():
        path = workspace.release_dir(release) / "selection.parquet"
        if path.exists() and uids:
            known = scan_tables([path], ["uid", "reason"]).collect()
            named = known.filter(known["reason"].fill_null("") != REASON)["uid"]
            if count := len(uids.intersection(named)):
                found[release] = count
    return found


def entries(found: Found, near: Sequence[Hit] = ()) -> set[tuple[Kind, bytes]]:
    """The hashes that keep what was found out for good.

    What was asked for, as it was asked for; each sample's uid; and with near-duplicates the URL and the file of every
    sample, since what is nearly a picture comes back under other captions, too.
    """
    kept: set[tuple[Kind, bytes]] = {(one.kind, one.hash()) for one in found.selectors}
    kept |= {("uid", hash_of("uid", hit.uid)) for hit in (*found.hits, *near)}
    for hit in (*found.hits, *near) if near else ():
        if hit.url_key is not None:
            kept.add(("url", hash_of("url", hit.url_key)))
        if hit.sha256 is not None:
            kept.add(("sha256", hash_of("sha256", hit.sha256)))
    return kept


def _media(workspace: Workspace, part: str, name: str) -> dict[str, str]:
    """uid -> SHA-256 of what was fetched for it."""
    path = workspace.table(part, "media", name)
    if not path.exists():
        return {}
    table: pa.Table = read_table(path, ["uid", "sha256"])
    return {uid: sha for uid, sha in _pairs(table) if sha is not None}


def _pairs(table: pa.Table) -> Iterator[tuple[str, str | None]]:
    return zip(table["uid"].to_pylist(), table["sha256"].to_pylist(), strict=True)


def _is_of(files: Sequence[str], opt_out: OptOut, sha256: str | None, row: Mapping[str, float | None]) -> bool:
    """Whether a sample's media is one of the files, or was cut from one."""
    if sha256 is None or not files:
        return False
    if row["start_s"] is None:
        return opt_out.covers_file(sha256)
    return sha256 in files or any(clip_sha256(file, row["start_s"], row["end_s"]) == sha256 for file in files)
