"""Forget samples: sign it off in the log, then take them out of every part; and the releases that still hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmdata.config import Corpus
from mmdata.errors import UserError
from mmdata.optout.forget_log import Entry, append, forgotten_path, read_log, unfinished
from mmdata.optout.hashes import forgotten_hashes, hashes_digest, load_opt_out, write_hashes
from mmdata.optout.selectors import Selector
from mmdata.releases.collect import Garbage, collect_garbage
from mmdata.releases.pins import pins
from mmdata.stage import Progress, silent
from mmdata.takedown.find import Found, Hit, entries, holders
from mmdata.takedown.parts import finish_rows, leave_out, part_names, remove_media
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased

KEEP_ALL = 1_000_000_000


def forget(
    corpus: Corpus,
    workspace: Workspace,
    found: Found,
    *,
    by: str,
    reason: str = "",
    near: Sequence[Hit] = (),
    progress: Progress = silent,
) -> Entry:
    """Forget what was found: from the log's entry on nothing of it is fetched or released, wherever this is killed.

    The table of hashes is published first, then the log's entry that names it, then part by part what is left. What
    is left undone is done by the next `finish`, or the next build of the part.

    Args:
        by: who signs for it.
        near: further samples to forget.

    Returns:
        The log's entry.

    Raises:
        UserError: nobody signs; or a build is at work for longer than engine.wait_s.
        DataError: the log has been tampered with, or a table is damaged.
    """
    if not by.strip():
        raise UserError("a takedown is signed for by somebody. Remedy: --by NAME")
    kept = entries(found, near)
    hits = [*found.hits, *near]
    with leased(workspace, "release", "forget", wait_s=corpus.engine.wait_s):
        number = len(read_log(workspace)) + 1
        write_hashes(forgotten_path(workspace, number), kept)
        entry = append(
            workspace,
            Entry(
                number=number,
                what="forget",
                at="",
                by=by.strip(),
                reason=reason,
                hashes=hashes_digest(kept),
                selectors=dict(sorted(Counter(one.kind for one in found.selectors).items())),
                counts={"samples": len({hit.uid for hit in hits}), "near": len({hit.uid for hit in near})},
                parts=dict(sorted(Counter(hit.part for hit in hits).items())),
                releases=tuple(sorted({*found.releases, *holders(workspace, {hit.uid for hit in hits})})),
            ),
        )
        _take_out(corpus, workspace, by, progress)
    return entry


def finish(corpus: Corpus, workspace: Workspace, *, by: str, progress: Progress = silent) -> list[int]:
    """Do what a killed `forget` left undone; the numbers of the log's entries that were finished.

    Raises:
        UserError: a build is at work for longer than engine.wait_s.
    """
    if not unfinished(read_log(workspace)):
        return []
    with leased(workspace, "release", "forget", wait_s=corpus.engine.wait_s):
        return _take_out(corpus, workspace, by, progress)


def _take_out(corpus: Corpus, workspace: Workspace, by: str, progress: Progress) -> list[int]:
    """Bring every part to what is left out by now, and say so in the log. While holding the lease `release`."""
    opt_out = load_opt_out(workspace)
    parts = part_names(workspace)
    for done, part in enumerate(parts):
        progress("forget", done, len(parts))
        with leased(workspace, f"part-{part}", "forget", wait_s=corpus.engine.wait_s):
            leave_out(corpus, workspace, part, opt_out)
            remove_media(workspace, part)
            finish_rows(workspace, part, opt_out)
    progress("forget", len(parts), len(parts))
    open_entries = [entry.number for entry in unfinished(read_log(workspace))]
    for number in open_entries:
        append(workspace, Entry(number=0, what="done", at="", by=by.strip() or "mmdata", of=number))
    return open_entries


def is_forgotten(workspace: Workspace, selectors: Sequence[Selector]) -> bool:
    """Whether the log forgets all of this already."""
    known = forgotten_hashes(workspace)
    return all((one.kind, one.hash()) in known for one in selectors)


def still_held(workspace: Workspace) -> dict[str, str]:
    """The releases that hold or show what was forgotten: id -> `latest`, `pinned` or nothing."""
    named = {release for entry in read_log(workspace) for release in entry.releases}
    latest, pinned = workspace.latest(), pins(workspace)
    standing = [one for one in workspace.releases() if one in named]
    return {one: "latest" if one == latest else "pinned" if one in pinned else "" for one in standing}


def purge(corpus: Corpus, workspace: Workspace) -> Garbage:
    """Delete the releases that hold what was forgotten, and their shards; the latest and the pinned ones stay.

    Raises:
        UserError: a build is at work on a release for longer than engine.wait_s.
    """
    going = frozenset(one for one, why in still_held(workspace).items() if not why)
    return collect_garbage(workspace, KEEP_ALL, grace_s=0.0, wait_s=corpus.engine.wait_s, drop=going)
