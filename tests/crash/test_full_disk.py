"""A full disk: the error says so, what was published stands, and the work goes on once there is room."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import pytest

from mmdata.publish.verify import verify_release
from tests.crash.scenes import Scene, digest_of, make_scenes, order, outcome, pictures
from tests.crash.seeds import SEEDS
from tests.crash.zygote import Zygote
from tests.support.small_disk import small_disk

STEPS_TRIED = 4  # for each seed, half of them in each scene
SIZES_KB = (96, 224, 352)  # of the disk; the work of a scene takes about 500


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Zygote, list[Scene]]]:
    with pictures() as url, Zygote() as zygote:
        yield zygote, make_scenes(tmp_path_factory.mktemp("full"), url, zygote)[:2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_that_is_full_from_some_step_on_leaves_what_was_published(
    stage: tuple[Zygote, list[Scene]], seed: int
) -> None:
    zygote, scenes = stage
    numbers = random.Random(seed)
    for attempt in range(STEPS_TRIED):
        scene = scenes[attempt % len(scenes)]
        folder = scene.folder.parent / "corpus"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scene.folder, folder)
        step = numbers.randint(1, scene.steps)
        life = zygote.live(order(folder, scene.work, full_at=step))
        assert "No space left on device" in life.end, (scene.name, step, life)
        assert not [path for path, digest in scene.before.items() if digest_of(folder / path) != digest]
        assert zygote.live(order(folder, scene.work)).end == "done"
        assert outcome(folder) == scene.expected, (scene.name, step)


@pytest.mark.parametrize("size_kb", SIZES_KB)
def test_a_small_disk_that_runs_full(stage: tuple[Zygote, list[Scene]], size_kb: int) -> None:
    zygote, scenes = stage
    scene = scenes[0]
    folder = scene.folder.parent / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(scene.folder, folder)
    with small_disk(folder / "workspace", size_kb) as grow:
        life = zygote.live(order(folder, scene.work))
        assert "No space left on device" in life.end, life
        grow()
        assert zygote.live(order(folder, scene.work)).end == "done"
        assert outcome(folder) == scene.expected
        verify_release(folder / "workspace")
