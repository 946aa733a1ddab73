"""Takedowns for the tests of optout and takedown: corpora of two files, selectors, and kills at each step."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mmdata.storage.atomic
import mmdata.storage.tables
import mmdata.workspace.media_tar
from mmdata.optout.selectors import Selector, selector_of
from mmdata.takedown.find import find
from mmdata.takedown.forget import forget
from mmdata.takedown.near import find_near, hits_of
from tests.support.published import Published, Web, caption, pairs, picture, uid

CorpusOn = Callable[..., Published]


def forget_samples(built: Published, *selectors: Selector, near: bool = False) -> None:
    matches = find(built.workspace, selectors)
    near_duplicates = hits_of(find_near(built.workspace, matches, 4, 0.05)) if near else ()
    forget(built.corpus, built.workspace, matches, by="Ada", reason="asked to", near=near_duplicates)


def two_files(built: Published, web: Web) -> None:
    built.write("a", pairs(web, range(7)))
    built.write("b", pairs(web, range(7, 11), "127.0.0.2"))


SELECTORS: dict[str, tuple[Callable[[Web], Selector], set[int]]] = {
    "url": (lambda web: selector_of("url", web.url(3).replace("http://", "HTTPS://")), {3}),
    "domain": (lambda web: selector_of("domain", "127.0.0.2"), {7, 8, 9, 10}),
    "uid": (lambda web: selector_of("uid", uid(web.url(5), caption(5)).upper()), {5}),
    "sha256": (lambda web: selector_of("sha256", hashlib.sha256(picture(2)).hexdigest()), {2}),
}


def copy_of(built: Published, root: Path) -> Published:
    shutil.copytree(built.root, root)
    return Published(built.folder, str(root), built.web, **built.sections)


@contextmanager
def killed_at(step: int) -> Iterator[dict[str, bool]]:
    """Every later publish fails: an even step is killed before publish number step / 2, an odd one right after it."""
    real = mmdata.storage.atomic.atomic_path
    state = {"count": 0, "killed": False}

    @contextmanager
    def failing_atomic_path(target: Any, name: Any = None) -> Iterator[Path]:
        is_lease = "leases" in str(target)
        is_this_step = state["count"] == step // 2 and not is_lease and not state["killed"]
        state["count"] += not is_lease
        if is_this_step and step % 2 == 0:
            state["killed"] = True
            raise OSError("killed before")
        with real(target, name) as draft:
            yield draft
        if is_this_step:
            state["killed"] = True
            raise OSError("killed after")

    with pytest.MonkeyPatch.context() as patch:
        for module in (mmdata.storage.atomic, mmdata.storage.tables, mmdata.workspace.media_tar):
            patch.setattr(module, "atomic_path", failing_atomic_path)
        yield state  # type: ignore[misc]
