"""Forgets samples: writes a signed entry to the log, then removes them from all parts; lists and deletes releases."""

from __future__ import annotations

import sys
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
from mmdata.takedown.find import Hit, Matches, entries, holders
from mmdata.takedown.parts import finish_rows, leave_out, part_names, remove_media
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased


def forget(
    corpus: Corpus,
    workspace: Workspace,
    matches: Matches,
    *,
    by: str,
    reason: str = "",
    near: Sequence[Hit] = (),
    progress: Progress = silent,
) -> Entry:
    """Forget the matched samples; once the log has the entry, they are never fetched or released again.

    The table of hashes is published first, then the entry of the log that names it, then each part is rewritten. After
    a kill the rest is done by the next `finish`, or by the next build of the part.

    Args:
        by: name of the person who signs.
        near: further samples to forget.

    Raises:
        UserError: `by` is empty; or a build runs for longer than engine.wait_s.
        DataError: the log has been tampered with, or a table is damaged.
    """
    if not by.strip():
        raise UserError("a takedown needs the name of the person who signs it. Remedy: --by NAME")
    hashes = entries(matches, near)
    hits = [*matches.hits, *near]
    with leased(workspace, "release", "forget", wait_s=corpus.engine.wait_s):
        number = len(read_log(workspace)) + 1
        write_hashes(forgotten_path(workspace, number), hashes)
        entry = append(
            workspace,
            Entry(
                number=number,
                what="forget",
                at="",
                by=by.strip(),
                reason=reason,
                hashes=hashes_digest(hashes),
                selectors=dict(sorted(Counter(selector.kind for selector in matches.selectors).items())),
                counts={"samples": len({hit.uid for hit in hits}), "near": len({hit.uid for hit in near})},
                parts=dict(sorted(Counter(hit.part for hit in hits).items())),
                releases=tuple(sorted({*matches.releases, *holders(workspace, {hit.uid for hit in hits})})),
            ),
        )
        _leave_out_of_all_parts(corpus, workspace, by, progress)
    return entry


def finish(corpus: Corpus, workspace: Workspace, *, by: str, progress: Progress = silent) -> list[int]:
    """Finish every `forget` that was killed; returns the numbers of the entries. Raises as `forget` does."""
    if not unfinished(read_log(workspace)):
        return []
    with leased(workspace, "release", "forget", wait_s=corpus.engine.wait_s):
        return _leave_out_of_all_parts(corpus, workspace, by, progress)


def _leave_out_of_all_parts(corpus: Corpus, workspace: Workspace, by: str, progress: Progress) -> list[int]:
    """Apply the opt-out to every part, and write to the log that it is done. The caller holds the lease `release`."""
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
    """Whether the log already forgets all of the selectors."""
    forgotten = forgotten_hashes(workspace)
    return all((selector.kind, selector.hash()) in forgotten for selector in selectors)


def still_held(workspace: Workspace) -> dict[str, str]:
    """The releases that contain or show forgotten samples: id -> `latest`, `pinned`, or an empty text."""
    named = {release for entry in read_log(workspace) for release in entry.releases}
    latest, pinned = workspace.latest(), pins(workspace)
    return {
        release: "latest" if release == latest else "pinned" if release in pinned else ""
        for release in workspace.releases()
        if release in named
    }


def purge(corpus: Corpus, workspace: Workspace) -> Garbage:
    """Delete the releases that contain forgotten samples, and their shards; the latest and pinned releases stay."""
    deletable = frozenset(release for release, protection in still_held(workspace).items() if not protection)
    return collect_garbage(workspace, sys.maxsize, grace_s=0.0, wait_s=corpus.engine.wait_s, drop=deletable)
