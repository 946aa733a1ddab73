"""The draft of a release: what it will be made from, the id that follows, and `selection.json`, which names it.

The selection stage writes the draft. The later publish stages read it, and refuse it if something that decides the
content of the release has changed since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmdata.config import Corpus, Select
from mmdata.config.concept_list import read_concept_lists
from mmdata.config.presets import PRESETS
from mmdata.config.selection_files import selection_file_states
from mmdata.engine.stage_fingerprints import CODE_VERSIONS, scorer_settings
from mmdata.errors import DataError
from mmdata.fingerprint import fingerprint
from mmdata.releases.manifest import find_manifest
from mmdata.releases.pins import rolled_back
from mmdata.storage.atomic import publish_json
from mmdata.workspace.json_files import read_derived
from mmdata.workspace.layout import PART_STAGES, Part, PartStage, Workspace


@dataclass(frozen=True, slots=True)
class Draft:
    """The release in the making, as `selection.json` holds it.

    Args:
        inputs: fingerprint of everything that decides the content.
        parent: id of the release that was the latest one; None for the first release.
        refused_parts: part -> why it stays out.
        counts, reasons: of the selection.
    """

    release_id: str
    inputs: str
    parent: str | None
    parts: tuple[str, ...]
    refused_parts: Mapping[str, str]
    counts: Mapping[str, int]
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """The id of the next release, and what it follows from.

    Args:
        published: a release of this id exists already, so nothing needs to be made.
    """

    release_id: str
    inputs: str
    parent: str | None
    published: bool


def find_draft(workspace: Workspace) -> Draft | None:
    """The draft; None before the first selection, or if its file is damaged."""
    return read_derived(workspace.draft_path, lambda data: Draft(**{**data, "parts": tuple(data["parts"])}))


def read_draft(workspace: Workspace) -> Draft:
    """The draft. Raises DataError before the first selection."""
    draft = find_draft(workspace)
    if draft is None:
        raise DataError(f"{workspace.draft_path}: nothing is selected yet. Remedy: `mmdata build` (`selection`).")
    return draft


def write_draft(workspace: Workspace, draft: Draft) -> None:
    """Write the draft, unless it is there already."""
    if find_draft(workspace) != draft:
        publish_json(workspace.draft_path, asdict(draft))


def check_draft(corpus: Corpus, workspace: Workspace) -> Draft:
    """The draft, which must still follow from corpus.yaml and the parts.

    Raises:
        DataError: nothing is selected, or something that decides has changed since.
    """
    draft = read_draft(workspace)
    if release_inputs(corpus, workspace, draft.parts) != draft.inputs:
        raise DataError(
            f"release {draft.release_id}: corpus.yaml or a part has changed since its samples were selected. "
            "Remedy: `mmdata build`, or materialise `selection` and what follows it."
        )
    return draft


def release_inputs(corpus: Corpus, workspace: Workspace, parts: Sequence[str]) -> str:
    """Fingerprint of everything that decides the content of a release.

    That is the tables of its parts, and the settings of every publish stage.

    Args:
        parts: names of the parts.

    Raises:
        DataError: a stamp of a part is gone.
        UserError: the concept list cannot be read.
    """
    paths, rules = corpus.select.balance.concepts, corpus.select.filter
    digests = {part: [_digest(workspace, part, stage) for stage in PART_STAGES] for part in parts}
    return fingerprint(
        [CODE_VERSIONS[stage] for stage in ("selection", "shards", "instructions")],
        digests,
        _deciding(corpus.select),
        read_concept_lists(paths).content if paths else None,
        corpus.shards,
        corpus.instruct,
        corpus.seed,
        scorer_settings(corpus.score),
        *([[corpus.recaption.use, corpus.recaption.margin]] if corpus.recaption.replaces else []),
        *selection_file_states(corpus.select),
        *([PRESETS[rules.preset].values] if rules.preset else []),  # a preset of the same name may be mended
    )


def _deciding(select: Select) -> dict[str, Any]:
    """The settings of the selection that have an effect; the concept list counts by what it holds."""
    unused = select.unused
    return select.model_dump(mode="json", exclude={**unused, "balance": {"concepts", *unused["balance"]}})


def plan_release(corpus: Corpus, workspace: Workspace, parts: Sequence[Part]) -> ReleasePlan:
    """The id that a release of these parts gets: the latest one's if nothing that decides has changed."""
    inputs = release_inputs(corpus, workspace, [part.name for part in parts])
    latest = workspace.latest()
    manifest = find_manifest(workspace, latest)
    if latest and manifest and manifest.get("inputs") == inputs:
        return ReleasePlan(latest, inputs, manifest.get("parent"), published=True)
    mark = rolled_back(workspace).get(inputs)
    rejected = find_manifest(workspace, mark["release"]) if mark else None
    if mark and rejected:  # a person went back from this release: it exists, and must not become the latest again
        return ReleasePlan(mark["release"], inputs, rejected.get("parent"), published=True)
    draft = find_draft(workspace)
    is_lost = manifest is None and draft is not None and draft.inputs == inputs  # the manifest, or `releases/latest`
    release_id = draft.release_id if draft and is_lost else fingerprint(inputs, latest)
    parent = draft.parent if draft and is_lost else latest
    published = (workspace.release_dir(release_id) / "manifest.json").exists()
    return ReleasePlan(release_id, inputs, parent, published)


def _digest(workspace: Workspace, part: str, stage: PartStage) -> str:
    stamp = workspace.part_stamp(part, stage)
    if stamp is None:
        raise DataError(f"part {part}: the stamp of {stage} is gone. Remedy: `mmdata build` finishes the part.")
    return stamp.digest
