"""Workspaces with releases, built once and copied for each test that changes them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import pytest

from mmdata.instruct.stage import write_instructions
from mmdata.publish.release import publish_release
from mmdata.releases.diff import Diff, diff_releases
from mmdata.releases.draft import read_draft
from mmdata.releases.manifest import open_release
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from tests.support.workspaces import Built, add_parts, build, copy_of, release

RELEASES = 4


class Grown(NamedTuple):
    """A workspace and the ids of two releases: the second one has lost rows, gained rows, and has another part."""

    built: Built
    first: str
    second: str

    def diff(self) -> Diff:
        return diff_between(self.built, self.first, self.second)


def diff_between(built: Built, before: str, after: str) -> Diff:
    return diff_releases(*(open_release(built.workspace.release_dir(name)) for name in (before, after)))


def build_history(root: Path, seed: int) -> tuple[Built, list[str]]:
    """Build releases in which parts come, change and go, so that shards are shared in all ways."""
    numbers = random.Random(seed)
    built = build(str(root), {"web-000000": range(30)})
    ids = [release(built)]
    for step in range(1, RELEASES):
        first = 30 * step
        add_parts(built, {f"web-{step:06d}": range(first, first + 20)})
        if numbers.random() < 0.5:
            part = numbers.randrange(step)
            add_parts(built, {f"web-{part:06d}": range(30 * part + numbers.randrange(1, 5), 30 * part + 20)})
        ids.append(release(built))
    return built, ids


@pytest.fixture(scope="session")
def shared_history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, list[str]]:
    """Four releases, the oldest first. Only to be read."""
    return build_history(tmp_path_factory.mktemp("history") / "workspace", seed=0)


@pytest.fixture
def history(shared_history: tuple[Built, list[str]], tmp_path: Path) -> tuple[Built, list[str]]:
    """A copy of the four releases, for one test to change."""
    built, ids = shared_history
    return copy_of(built, tmp_path / "workspace"), list(ids)


@pytest.fixture(scope="session")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A release of numbers 0 to 39, and a draft: web-000001 loses 4 rows and gains 6, web-000002 comes with 10."""
    root = tmp_path_factory.mktemp("unpublished") / "workspace"
    built = build(str(root), {"web-000000": range(20), "web-000001": range(20, 40)})
    first = release(built)
    add_parts(built, {"web-000001": [*range(24, 40), *range(100, 106)], "web-000002": range(200, 210)})
    for stage in (select_samples, write_shards, write_instructions):
        stage(built.corpus, built.workspace)
    return Grown(built, first, read_draft(built.workspace).release_id)


@pytest.fixture(scope="session")
def shared_grown(unpublished: Grown, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """The two releases, both published. Only to be read."""
    built = copy_of(unpublished.built, tmp_path_factory.mktemp("grown") / "workspace")
    publish_release(built.corpus, built.workspace)
    return unpublished._replace(built=built)


@pytest.fixture
def grown(shared_grown: Grown, tmp_path: Path) -> Grown:
    """A copy of the two releases, for one test to change."""
    return shared_grown._replace(built=copy_of(shared_grown.built, tmp_path / "workspace"))
