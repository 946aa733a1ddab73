"""Forecasts whether the next build keeps the latest release or makes a new one, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmdata.config import Corpus
from mmdata.config.setting_changes import Change, changed_settings, flat
from mmdata.engine.freshness import releasable_parts
from mmdata.inspect.next_parts import PartWork
from mmdata.releases.draft import plan_release
from mmdata.releases.holds import read_hold
from mmdata.releases.manifest import find_manifest, public_config
from mmdata.workspace.layout import Workspace

SECTIONS = ("seed", "select", "shards", "instruct", "score")
SCORE_SETTINGS = ("score.model", "score.pretrained", "score.precision")  # the others do not change a release
CONCEPTS = "select.balance.concepts"  # the content of this file, or of these files, decides, not the path

Verdict = Literal["stands", "new", "depends", "none"]
"""`stands`: the latest stays. `depends`: on whether the work changes a table. `none`: no part may be released."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The release after the next build.

    Args:
        release_id: the release that stands, or the id of the new one if it is known already.
        latest: the latest release now; None before the first.
        why: for people, one line each.
        settings: settings that decide the content of a release and differ from the latest release.
        refused: part -> why it is left out; only parts without planned work.
    """

    verdict: Verdict
    release_id: str | None
    latest: str | None
    why: tuple[str, ...]
    settings: tuple[Change, ...]
    refused: dict[str, str]


def forecast(corpus: Corpus, workspace: Workspace, work: Sequence[PartWork], opt_out_changes: bool) -> Forecast:
    """Forecast whether a build makes a new release.

    Args:
        workspace: with the catalogue that the build would write.
        work: the parts that the build would work on.
        opt_out_changes: whether the entries of an opt-out list have changed.
    """
    ready, refused = releasable_parts(corpus, workspace)
    worked_on = {part_work.part.name for part_work in work}
    refused = {name: why for name, why in refused.items() if name not in worked_on}
    latest = workspace.latest()
    manifest = find_manifest(workspace, latest) or {}
    next_parts = {part.name for part in ready} | worked_on
    if not next_parts:
        return Forecast("none", None, latest, ("no part may enter a release",), (), refused)
    settings = _changed_settings(corpus, manifest) if manifest else []
    why = _reasons(next_parts, set(manifest.get("parts", ())), settings, latest)
    if not work and not opt_out_changes:
        plan = plan_release(corpus, workspace, ready)
        if plan.published:
            hold = read_hold(workspace)
            if plan.release_id == latest:
                reason = "nothing that decides its content has changed"
            elif hold is not None and hold["release"] == plan.release_id:
                reason = f"the same inputs made {plan.release_id}, which is held: {hold['why']}"
            else:
                reason = f"the same inputs made {plan.release_id}, which was rolled back"
            return Forecast("stands", latest, latest, (reason,), (), refused)
        unnamed = ("tables of a part, a file that corpus.yaml names, or mmdata's own code changed",)
        return Forecast("new", plan.release_id, latest, tuple(why) or unnamed, tuple(settings), refused)
    if why:
        return Forecast("new", None, latest, tuple(why), tuple(settings), refused)
    if opt_out_changes:
        condition = "a new one if the changed opt-out lists name any sample of the corpus"
    elif all(part_work.only_retries for part_work in work):
        condition = "a new one if any retry succeeds"
    else:
        condition = "a new one if the work changes any table"
    return Forecast("depends", None, latest, (condition,), (), refused)


def _changed_settings(corpus: Corpus, manifest: dict[str, Any]) -> list[Change]:
    """The settings that decide the content of a release and differ from the manifest's."""
    before, now = (
        {
            name: value
            for name, value in flat({key: config.get(key) for key in SECTIONS}).items()
            if not name.startswith("score.") or name in SCORE_SETTINGS
        }
        for config in (manifest.get("config", {}), public_config(corpus))
    )
    changes = changed_settings(before, now)
    return [change for change in changes if not _is_concept_path(change.name) or None in (change.old, change.new)]


def _is_concept_path(name: str) -> bool:
    return name == CONCEPTS or name.startswith(f"{CONCEPTS}.")


def _reasons(parts: set[str], before: set[str], settings: Sequence[Change], latest: str | None) -> list[str]:
    if latest is None:
        return ["there is no release yet"]
    new, gone = sorted(parts - before), sorted(before - parts)
    why = [str(change) for change in settings]
    if new:
        why.append(f"{len(new)} parts are not in it: {_first_names(new)}")
    if gone:
        why.append(f"{len(gone)} parts of it leave: {_first_names(gone)}")
    return why


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
