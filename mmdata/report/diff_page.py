"""Two releases on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from mmdata.figures import charts
from mmdata.releases.changes import change_line
from mmdata.releases.diff import Diff
from mmdata.report.page import environment

NAMES_SHOWN = 15


def comparison_page(diff: Diff, sudden: Sequence[str] = ()) -> str:
    """The difference of two releases as HTML: no script, nothing loaded from elsewhere, all text escaped.

    Args:
        sudden: changes that exceed their limits, one line for each.
    """
    counts, scores = diff.counts, diff.scores
    plot = None
    if scores.stability is not None:
        title = "Histograms of the scores before and after"
        plot = charts.two_histograms(scores.edges, scores.before, scores.after, title).inline()
    tiles = [
        (name, f"{counts[key]:,}")
        for name, key in (
            ("samples before", "samples_before"),
            ("samples after", "samples_after"),
            ("added", "added"),
            ("dropped", "dropped"),
            ("with more copies", "repeats_up"),
            ("with fewer copies", "repeats_down"),
            ("shards reused", "shards_reused"),
            ("new shards", "shards_new"),
        )
    ]
    page = environment().get_template("diff.html.j2")
    return page.render(
        diff=diff,
        line=change_line(counts),
        sudden=sudden,
        tiles=tiles,
        whys=[("Added", list(diff.added.items())), ("Dropped", list(diff.dropped.items()))],
        plot=plot,
        mix=[(field, shifts[:NAMES_SHOWN], len(shifts[NAMES_SHOWN:])) for field, shifts in diff.mix.items()],
    )
