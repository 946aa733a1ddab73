"""Rules of the filter that judge nothing, because no row of a source has the column that they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from mmdata.config import Filter, Score, Select
from mmdata.config.presets import resolve
from mmdata.samples import SOURCE_SCORES
from mmdata.select.score_summary import NamedScore
from mmdata.workspace.layout import Part, PartStamp

COMPUTED_BY = {"punsafe": "set score.nsfw: true, which computes one, "}


def idle_rules(settings: Filter, rows_stamps: Mapping[Part, PartStamp], score: Score) -> list[str]:
    """A warning for each rule on a source's own score (`max_punsafe`, `max_pwatermark`) that no row of a source has.

    Args:
        rows_stamps: part -> the stamp of its rows.
        score: where it computes the score, too (`score.nsfw`), the rule is not idle.
    """
    usable: Counter[str] = Counter()
    scored: dict[str, Counter[str]] = {name: Counter() for name in SOURCE_SCORES}
    for part, stamp in rows_stamps.items():
        usable[part.source] += stamp.counts.get("usable", 0)
        for name in SOURCE_SCORES:
            scored[name][part.source] += stamp.counts.get(f"with_{name}", 0)
    warnings = []
    for name in SOURCE_SCORES:
        key = f"max_{name}"
        sources = sorted(source for source, rows in usable.items() if rows and not scored[name][source])
        if name == "punsafe" and score.nsfw:
            continue
        if getattr(resolve(settings), key) is not None and sources:
            warnings.append(
                f"select.filter.{key} judges no row of source {', '.join(sources)}: no row has a {name}. Remedy: name "
                f"the column that holds it, columns: {{{name}: <column>}}, in that source of corpus.yaml, "
                f"{COMPUTED_BY.get(name, '')}or take the rule out."
            )
    return warnings


def idle_scores(select: Select, named: Mapping[str, NamedScore]) -> list[str]:
    """A warning for each score that a rule uses and that reads a source's own column which no row has.

    Args:
        named: name -> the score of the rows of the selection.
    """
    warnings = []
    for name in select.filter.used_scores:
        kind = select.scores.get(name)
        if kind is None or kind.kind != "column" or name not in named or np.isfinite(named[name].values).any():
            continue
        judges = "drops every row" if kind.required else "judges no row"
        warnings.append(
            f"select.filter: score {name} {judges}: no row has a number in its source's column {kind.column}. Remedy: "
            f"correct select.scores.{name}.column, name the column in keep_columns of the source, or take the rule out."
        )
    return warnings
