"""The road dies at every kind of step, again and again, and ends in the release of an undisturbed run.

`make soak` does the same thousands of times; docs/crash-safety.md has its table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.scenes import Deaths, Scene, make_scenes, pictures, survive
from tests.crash.soak import WAYS
from tests.crash.zygote import Zygote

MIN_DEATHS = 14  # of each kind in each scene: 210 in all
SCENES = (
    "first release",
    "rows come, change and go",
    "a setting changes, a file is gone",
    "garbage collection",
    "takedown",
)
QUICK = dict(zip(SCENES, ("killed", "power cut", "at a random time", "killed", "power cut"), strict=True))
"""The kind of death that `make test` tries in each scene, once; `make test-all` tries every kind in every scene."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Zygote, dict[str, Scene]]]:
    with pictures() as url, Zygote() as zygote:
        made = make_scenes(tmp_path_factory.mktemp("crash"), url, zygote)
        yield zygote, {scene.name: scene for scene in made}


@pytest.mark.parametrize(("name", "way"), QUICK.items())
def test_a_build_that_dies_on_its_way_ends_in_the_release_of_an_undisturbed_one(
    stage: tuple[Zygote, dict[str, Scene]], name: str, way: str
) -> None:
    zygote, scenes = stage
    power, timed = WAYS[way]
    deaths = Deaths()
    survive(scenes[name], zygote, 0, power=power, timed=timed, deaths=deaths)
    assert deaths.total > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCENES)
def test_every_kind_of_death_in_every_scene(stage: tuple[Zygote, dict[str, Scene]], name: str, way: str) -> None:
    zygote, scenes = stage
    power, timed = WAYS[way]
    deaths, seed = Deaths(), 1
    while deaths.total < MIN_DEATHS:
        survive(scenes[name], zygote, seed, power=power, timed=timed, deaths=deaths)
        seed += 1


def test_every_file_is_synced_before_it_gets_its_name(stage: tuple[Zygote, dict[str, Scene]]) -> None:
    """Held against every rename of the five undisturbed runs: see `_scene`."""
    _, scenes = stage
    assert min(scene.steps for scene in scenes.values()) > 50
    assert sum(scene.steps for scene in scenes.values()) > 1000
