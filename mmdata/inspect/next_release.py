"""The release that a build would end with: the one there is, or a new one, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmdata.config import Corpus
from mmdata.config.setting_changes import Change, changed_settings, flat
from mmdata.engine.freshness import releasable_parts
from mmdata.inspect.next_parts import PartWork
from mmdata.releases.draft import plan_release
from mmdata.releases.manifest import public_config
from mmdata.workspace.layout import Workspace, read_json

SECTIONS = ("seed", "select", "shards", "instruct", "score")
SCORER = ("score.model", "score.pretrained", "score.precision")
CONCEPTS = "select.balance.concepts"  # what the file holds decides, not where it lies

Verdict = Literal["stands", "new", "depends", "none"]
"""`depends`: on whether the work of the parts changes a table. `none`: no part may enter a release."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of the latest release.

    Args:
        release_id: the release that stands, or the new one's id where it is known already.
        latest: the latest release now; None before the first.
        why: for people, a line each.
        settings: what decides over a release and is not as it was in the latest.
        refused: part -> why it is left out, of the parts that no work is planned for.
    """

    verdict: Verdict
    release_id: str | None
    latest: str | None
    why: tuple[str, ...]
    settings: tuple[Change, ...]
    refused: dict[str, str]


def forecast(corpus: Corpus, workspace: Workspace, work: Sequence[PartWork], opt_out_changes: bool) -> Forecast:
    """Say whether a build makes a new release.

    Args:
        workspace: with the catalogue as the build would have it.
        work: the parts that the build works on.
        opt_out_changes: whether a list of what is to be left out has other entries by now.
    """
    ready, refused = releasable_parts(corpus, workspace)
    worked_on = {one.part.name for one in work}
    refused = {name: why for name, why in refused.items() if name not in worked_on}
    latest = workspace.latest()
    manifest = (read_json(workspace.release_dir(latest) / "manifest.json") if latest else None) or {}
    coming = {part.name for part in ready} | worked_on
    if not coming:
        return Forecast("none", None, latest, ("no part may enter a release",), (), refused)
    settings = release_settings_changed(corpus, manifest) if manifest else []
    why = _reasons(coming, set(manifest.get("parts", ())), settings, latest)
    if not work and not opt_out_changes:
        plan = plan_release(corpus, workspace, ready)
        if plan.published:
            stands = (
                "nothing that decides has changed"
                if plan.release_id == latest
                else f"the same inputs made {plan.release_id}, which was rolled back"
            )
            return Forecast("stands", latest, latest, (stands,), (), refused)
        unnamed = ("tables of a part, a file that corpus.yaml names, or mmdata's own code changed",)
        return Forecast("new", plan.release_id, latest, tuple(why) or unnamed, tuple(settings), refused)
    if why:
        return Forecast("new", None, latest, tuple(why), tuple(settings), refused)
    if opt_out_changes:
        unsure = "a new one if the changed opt-out lists name anything that is here"
    elif all(one.only_retries for one in work):
        unsure = "a new one if any retry succeeds"
    else:
        unsure = "a new one if the work changes any table"
    return Forecast("depends", None, latest, (unsure,), (), refused)


def release_settings_changed(corpus: Corpus, manifest: dict[str, Any]) -> list[Change]:
    """The settings of selection, shards and instructions that are not as the manifest has them."""
    before, now = (
        {name: value for name, value in flat({key: config.get(key) for key in SECTIONS}).items() if _decides(name)}
        for config in (manifest.get("config", {}), public_config(corpus))
    )
    changes = changed_settings(before, now)
    return [one for one in changes if one.name != CONCEPTS or None in (one.old, one.new)]


def _decides(name: str) -> bool:
    return not name.startswith("score.") or name in SCORER


def _reasons(coming: set[str], before: set[str], settings: Sequence[Change], latest: str | None) -> list[str]:
    if latest is None:
        return ["there is no release yet"]
    new, gone = sorted(coming - before), sorted(before - coming)
    why = [f"{change}" for change in settings]
    if new:
        why.append(f"{len(new)} parts are not in it: {_listed(new)}")
    if gone:
        why.append(f"{len(gone)} parts of it leave: {_listed(gone)}")
    return why


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
