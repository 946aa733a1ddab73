"""Read a part's rows and bring everything that the part already has (media, features) to the opt-out of this moment."""

from __future__ import annotations

from mmdata.config import Corpus
from mmdata.optout.hashes import load_opt_out
from mmdata.sources.stage import open_part
from mmdata.stage import Progress, StageReport, silent
from mmdata.takedown.parts import leave_out, pardon, remove_media_unless_busy
from mmdata.workspace.layout import Workspace


def read_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Read a part's rows into slices; slices that are up to date are not read again. Runs under the part's lease.

    The order is what makes a kill at any moment safe: the stamp that names the opt-out is written last. Until then
    the part counts as stale, so no release is made of it, and the next run does the rest. Raises as `open_part` and
    `RowsPart.read_slices` do.
    """
    part = open_part(corpus, workspace, part_name)
    opt_out = load_opt_out(workspace)
    stamp_before = workspace.part_stamp(part_name, "rows")
    entries_removed = stamp_before is None or opt_out.pardons_since(stamp_before.opt_out)
    if entries_removed:
        pardon(workspace, part_name, opt_out)
    stamps, reused = part.read_slices(opt_out, progress, reread_opted_out=entries_removed)
    if opt_out.digest and (stamp_before is None or stamp_before.opt_out != opt_out.digest):
        leave_out(corpus, workspace, part_name, opt_out)
        remove_media_unless_busy(workspace, part_name)
        stamps = part.fresh_slices()
    return part.stamp(stamps, opt_out.digest, reused)
