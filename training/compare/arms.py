"""Arms: the training sets that are compared, and how the command names them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from upath import UPath

from mmdata.config import Corpus
from mmdata.config.load import load_corpus, parse_corpus
from mmdata.errors import UserError
from mmdata.releases.draft import find_draft
from mmdata.releases.manifest import Release, open_release
from mmdata.releases.pins import named_release
from mmdata.select.stage import try_selection
from mmdata.storage.tables import scan_tables
from mmdata.workspace.layout import Workspace
from training.compare.pairs import read_uids

TABLES = (".parquet", ".csv", ".txt")
_NAMED = re.compile(r"([^:/=;]*[^:/=;\s]):(?!//)(.+)", re.DOTALL)
_SETTING = re.compile(r"select(\.\w+)+=")


@dataclass(frozen=True, slots=True)
class Arm:
    """A training set.

    Args:
        name: unique among the arms.
        spec: what was asked for.
        samples: uid (sorted) and repeats (Int32, at least 1); None: every fetched pair once.
        release: where the arm is a release.
    """

    name: str
    spec: str
    samples: pl.DataFrame | None
    release: Release | None = None


def open_arms(specs: Sequence[str], corpus: Corpus | None) -> list[Arm]:
    """The arms that are asked for, in order.

    A spec is `raw`, `draft`, `latest`, the id or folder of a release, another corpus.yaml of the same workspace, a
    table of uids, or settings such as `select.filter.top_fraction=0.5;select.dedup.semantic_eps=null`, which replace
    those of the corpus. `NAME:SPEC` gives it a name.

    Args:
        corpus: None: arms can only be releases, given by their folders.

    Raises:
        UserError: an arm cannot be found, two arms have one name, or an arm needs a corpus.yaml.
    """
    arms = [_open(spec, corpus) for spec in specs]
    names = [arm.name for arm in arms]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two arms are called {sorted(repeated)[0]}. Remedy: name them, such as first:{arms[0].spec}")
    return arms


def _open(given: str, corpus: Corpus | None) -> Arm:
    named = _NAMED.fullmatch(given)
    spec = named[2] if named else given
    name = named[1] if named else spec
    if corpus is not None:
        if spec == "raw":
            return Arm(name, spec, None)
        if spec == "draft":
            return Arm(name, spec, _kept(_draft_table(Workspace(corpus.workspace))))
        if _SETTING.match(spec):
            return Arm(name, spec, _selected(changed(corpus, spec)))
        if spec.endswith((".yaml", ".yml")):
            return Arm(name if named else Path(spec).stem, spec, _selected(_same_workspace(corpus, spec)))
    elif spec in ("raw", "draft", "latest") or _SETTING.match(spec):
        raise UserError(f"arm {spec}: needs a corpus. Remedy: --config corpus.yaml.")
    if spec.endswith(TABLES):
        return Arm(name if named else Path(spec).stem, spec, read_uids(Path(spec)).sort("uid"))
    release = _find_release(spec, corpus)
    return Arm(name if named else release.id, spec, _of_release(release), release)


def _find_release(spec: str, corpus: Corpus | None) -> Release:
    if "/" in spec or UPath(spec).exists():
        return open_release(spec)
    if corpus is None:
        raise UserError(f"arm {spec}: no such folder. Remedy: give the folder of a release, or --config corpus.yaml.")
    workspace = Workspace(corpus.workspace)
    wanted = workspace.latest() if spec == "latest" else spec
    if wanted is None:
        raise UserError(f"{workspace.root}: no release yet. Remedy: `mmdata build`, or compare `draft` with `raw`.")
    return named_release(workspace, wanted)


def _of_release(release: Release) -> pl.DataFrame:
    index = scan_tables([release.folder / "index.parquet"], ["uid", "repeats"])
    return index.unique("uid", keep="first").collect().sort("uid")


def _draft_table(workspace: Workspace) -> UPath:
    draft = find_draft(workspace)
    if draft is None:
        raise UserError(f"{workspace.draft_path}: nothing is selected yet. Remedy: `mmdata build`.")
    return workspace.release_dir(draft.release_id) / "selection.parquet"


def _kept(table: UPath) -> pl.DataFrame:
    selection = scan_tables([table], ["uid", "keep", "repeats"])
    return selection.filter("keep", pl.col("repeats") > 0).select("uid", "repeats").collect().sort("uid")


def _selected(corpus: Corpus) -> pl.DataFrame:
    """What these settings would select. Nothing is written to the workspace."""
    with tempfile.TemporaryDirectory(prefix="mmdata-compare-") as folder:
        return _kept(try_selection(corpus, Workspace(corpus.workspace), UPath(folder)))


def _same_workspace(corpus: Corpus, path: str) -> Corpus:
    other = load_corpus(path)
    if Workspace(other.workspace).root != Workspace(corpus.workspace).root:
        raise UserError(
            f"{path}: its workspace is {other.workspace}, that of the corpus {corpus.workspace}. Remedy: set the same "
            "`workspace`, or give the folder of a release of the other one."
        )
    return other


def changed(corpus: Corpus, settings: str) -> Corpus:
    """A corpus with other settings of `select`.

    Args:
        settings: `select.filter.top_fraction=0.5`, several separated by `;`. Values are YAML.

    Raises:
        UserError: not of this form, an unknown key, or a wrong value.
    """
    data: dict[str, Any] = corpus.model_dump(mode="json", exclude_unset=True)
    for setting in filter(None, (part.strip() for part in settings.split(";"))):
        key, is_pair, text = setting.partition("=")
        if not is_pair or not _SETTING.match(setting):
            raise UserError(f"arm {settings}: {setting!r} is not select.KEY=VALUE")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"arm {settings}: {text!r} is not a YAML value") from None
        *parents, last = key.split(".")
        place = data
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        place[last] = value
    return parse_corpus(data, name=f"arm {settings}")
