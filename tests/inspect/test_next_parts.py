"""The work of stale parts: which slices run, over how many rows, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from mmdata.config import Select
from tests.inspect.conftest import NOW, Nightly


def test_due_retries_say_how_many_urls_and_which_slices(nightly: Nightly) -> None:
    nightly.gone = {f"http://example.com/{n}.jpg" for n in (3, 4, 25)}
    first = nightly.refresh(NOW - timedelta(days=1))
    assert nightly.plan(now=NOW - timedelta(seconds=1)).work == []
    plan = nightly.plan()
    (part,) = plan.work
    media, features = part.stages
    assert (media.stage, media.slices, media.of, media.rows, media.urls_due) == ("media", 2, 4, 3, 3)
    assert "retries due since" in media.why
    assert (features.slices, features.is_exact) == (2, False)
    assert (plan.forecast.verdict, plan.forecast.why) == ("depends", ("a new one if any retry succeeds",))
    assert nightly.refresh() == first, "they fail again: nothing changes"
    assert nightly.ran == [("web-000000", "media", 2), ("web-000000", "features", 0)]
    nightly.gone.clear()
    assert nightly.refresh() != first
    assert nightly.ran == [("web-000000", "media", 2), ("web-000000", "features", 2)]


@pytest.mark.parametrize(
    ("sections", "source", "stale", "change"),
    [
        ({}, {"slice_rows": 20}, ("rows", "media", "features"), "source web.slice_rows: 10 -> 20"),
        ({"download": {"image_size": 64}}, {}, ("media", "features"), "download.image_size: 256 -> 64"),
        ({"score": {"model": "demo", "precision": "bf16"}}, {}, ("features",), 'score.precision: "auto" -> "bf16"'),
        ({"privacy": {"blur_faces": True}}, {}, ("media", "features"), "privacy.blur_faces: false -> true"),
        ({"privacy": {"count_faces": True}}, {}, ("features",), "privacy.count_faces, from a score of: null -> "),
        ({"synthesis": {"speech": 0.5}}, {}, ("media", "features"), "synthesis.speech: 0.0 -> 0.5"),
    ],
)
def test_a_changed_setting_of_a_part_is_named_with_both_values(
    built: Nightly, sections: dict, source: dict, stale: tuple, change: str
) -> None:
    built.sections, built.source = sections, source
    plan = built.plan()
    assert {tuple(s.stage for s in work.stages) for work in plan.work} == {stale}
    (named,) = [text for (stage, text), parts in plan.settings.items() if stage == stale[0] and parts == 2]
    assert named.startswith(change)
    assert change in plan.work[0].stages[0].why
    assert plan.totals[0].rows == 60


def test_a_stamp_without_settings_stays_fresh_and_says_so_once_it_is_stale(built: Nightly) -> None:
    """A workspace of before settings were kept beside the stamps."""
    for path in (built.folder / "workspace/parts").glob("*/*.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "settings"}))
    assert built.plan().work == []
    built.sections = {"download": {"image_size": 64}}
    plan = built.plan()
    assert plan.work[0].stages[0].why == "its input or settings changed"
    assert plan.settings == {}


def test_an_interrupted_part_counts_only_the_slices_that_are_missing(built: Nightly) -> None:
    built.workspace.clear_part_stamp("web-000000", "media")
    built.workspace.clear_slice_stamp("web-000000", "media", "0002")
    (part,) = built.plan().work
    assert [(s.stage, s.slices, s.rows) for s in part.stages] == [("media", 1, 10), ("features", 1, 10)]
    assert part.stages[0].why == "not finished: 3 of 4 slices are done"


def test_slices_whose_text_embeddings_are_lacking_are_counted(built: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of before there were any, of which one slice was scored again since."""
    part, counts = "web-000000", {"rows": 10, "scored": 7}
    for name in ("0000", "0001", "0002", "0003"):
        stamp = built.workspace.slice_stamp(part, "features", name)
        slice_counts = counts | ({"text_embedded": 7} if name == "0001" else {})
        built.workspace.write_slice_stamp(part, "features", name, replace(stamp, counts=slice_counts))
    stamp = built.workspace.part_stamp(part, "features")
    built.workspace.write_part_stamp(part, "features", replace(stamp, counts={"scored": 28, "text_embedded": 7}))
    assert built.plan().work == []
    monkeypatch.setattr(Select, "needs_text_embeddings", property(lambda self: True))
    works = {work.part.name: work for work in built.plan().work}
    (features,) = works[part].stages
    assert (features.stage, features.slices, features.of, features.rows) == ("features", 3, 4, 30)
    assert features.why == "21 scored samples lack the text embedding that selection or instructions need"
