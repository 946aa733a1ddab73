"""Finds the samples that selectors mean, and the releases that contain them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmdata.download.recordings import clip_sha256
from mmdata.optout.hashes import COVERING, OptOut, opt_out_of
from mmdata.optout.selectors import Kind, Selector, hash_of
from mmdata.optout.state import OPT_OUT
from mmdata.storage.tables import read_table, scan_tables
from mmdata.takedown.parts import part_names, refused_documents, slice_names
from mmdata.urls import url_key
from mmdata.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class Hit:
    """A sample in a part."""

    uid: str
    part: str
    slice_name: str
    url_key: str | None  # its URL in the form of `mmdata.urls.url_key`; None if it has no URL
    sha256: str | None  # SHA-256 of its fetched file; None if it has none


@dataclass(frozen=True, slots=True)
class Matches:
    """The samples that selectors mean.

    Args:
        releases: published release -> how many of the samples its selection names; the release contains them, or its
            report may show them.
    """

    selectors: Sequence[Selector]
    hits: Sequence[Hit]  # one per sample and part that contains it
    before: int  # number of samples that are meant but already forgotten
    releases: Mapping[str, int]

    @property
    def uids(self) -> set[str]:
        return {hit.uid for hit in self.hits}

    def by_part(self) -> dict[str, int]:
        """Part -> number of its samples."""
        return dict(sorted(Counter(hit.part for hit in self.hits).items()))


def find(workspace: Workspace, selectors: Iterable[Selector]) -> Matches:
    """Search the tables of every part, removed parts included; reads only the columns it compares.

    A SHA-256 also means the clips that were cut from the file, and the documents that show it.

    Raises:
        DataError: a table is damaged; names it.
    """
    distinct = list(dict.fromkeys(selectors))
    files = [selector.value for selector in distinct if selector.kind == "sha256"]
    opt_out = opt_out_of(distinct)
    hits: list[Hit] = []
    before: set[str] = set()
    for part in part_names(workspace):
        for name in slice_names(workspace, part, "rows"):
            rows = read_table(workspace.table(part, "rows", name), [*COVERING, "problem", "start_s", "end_s"])
            sha256_by_uid, refused = _fetched_sha256(workspace, part, name, opt_out)
            for row, is_meant in zip(rows.to_pylist(), opt_out.covers_rows(rows), strict=True):
                sha256 = sha256_by_uid.get(row["uid"])
                if not is_meant and row["uid"] not in refused and not _is_from_file(files, opt_out, sha256, row):
                    continue
                if row["problem"] == OPT_OUT and row["url"] is None:
                    before.add(row["uid"])
                else:
                    key = url_key(row["url"]) if row["url"] else None
                    hits.append(Hit(row["uid"], part, name, key, sha256))
    return Matches(distinct, hits, len(before), holders(workspace, {hit.uid for hit in hits} | before))


def holders(workspace: Workspace, uids: set[str]) -> dict[str, int]:
    """Published release -> how many of these samples its selection names."""
    counts = {}
    for release in workspace.releases():
        path = workspace.release_dir(release) / "selection.parquet"
        if path.exists() and uids:
            selection = scan_tables([path], ["uid", "reason"]).collect()
            named = selection.filter(selection["reason"].fill_null("") != OPT_OUT)["uid"]
            if count := len(uids.intersection(named)):
                counts[release] = count
    return counts


def entries(matches: Matches, near: Sequence[Hit] = ()) -> set[tuple[Kind, bytes]]:
    """The hashes that keep the samples out of all later builds.

    They are the selectors themselves and the uid of each sample. With near-duplicates they are also the URL and the
    file of each sample, since a near-duplicate may return with another caption and so with another uid.
    """
    kept: set[tuple[Kind, bytes]] = {(selector.kind, selector.hash()) for selector in matches.selectors}
    hits = (*matches.hits, *near)
    kept |= {("uid", hash_of("uid", hit.uid)) for hit in hits}
    if near:
        kept |= {("url", hash_of("url", hit.url_key)) for hit in hits if hit.url_key is not None}
        kept |= {("sha256", hash_of("sha256", hit.sha256)) for hit in hits if hit.sha256 is not None}
    return kept


def _fetched_sha256(
    workspace: Workspace, part: str, name: str, opt_out: OptOut
) -> tuple[dict[str, str], Collection[str]]:
    """uid -> SHA-256 of the fetched file; and the documents that show a file that is meant."""
    path = workspace.table(part, "media", name)
    if not path.exists():
        return {}, ()
    table = read_table(path, ["uid", "sha256"], ["pictures"])
    pairs = zip(table["uid"].to_pylist(), table["sha256"].to_pylist(), strict=True)
    return {uid: sha256 for uid, sha256 in pairs if sha256 is not None}, refused_documents(table, opt_out)


def _is_from_file(files: Sequence[str], opt_out: OptOut, sha256: str | None, row: Mapping[str, float | None]) -> bool:
    """Whether the medium of a sample is one of the files, or a clip of one."""
    if sha256 is None or not files:
        return False
    if row["start_s"] is None:
        return opt_out.covers_file(sha256)
    return sha256 in files or any(clip_sha256(file, row["start_s"], row["end_s"]) == sha256 for file in files)
