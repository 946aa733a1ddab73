"""A release with generated captions: which text a sample has, what its `.json` says, what other readers are told."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from mmdata.cli.explain import show_story
from mmdata.inspect.story import explain
from mmdata.optout.hashes import opt_out_of
from mmdata.optout.selectors import selector_of
from mmdata.releases.manifest import open_release
from mmdata.report.stage import report_release
from mmdata.samples import INDEX
from mmdata.score.captioner import Answer
from mmdata.score.stage import score_part
from mmdata.storage.tables import read_table
from mmdata.takedown.parts import leave_out
from tests.support import captioning
from tests.support.captioning import PART, captioned_at
from tests.support.workspaces import SELECT_ALL, Built

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return captioned_at(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return captioned_at(tmp_path_factory.mktemp("replaced"), recaption={"use": "replace_where_better"})


def features(built: Built) -> dict[str, dict[str, Any]]:
    tables = [read_table(built.workspace.table(PART, "features", name)) for name in ("0000", "0001")]
    return {row["uid"]: row for table in tables for row in table.to_pylist()}


def samples(built: Built) -> dict[str, tuple[str, dict[str, Any]]]:
    """uid -> text and facts, of the first copies in the shards."""
    release = open_release(built.workspace.root)
    members: dict[str, dict[str, bytes]] = {}
    for shard in release.manifest["shards"]:
        with tarfile.open(Path((built.workspace.shards_dir / shard["name"]).path)) as tar:
            for member in tar:
                key, _, ext = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                members.setdefault(key, {})[ext] = file.read()
    return {key: (own["txt"].decode(), json.loads(own["json"])) for key, own in members.items() if len(key) == 32}


def index(built: Built) -> dict[str, dict[str, Any]]:
    table = pl.read_parquet(str(open_release(built.workspace.root).folder / "index.parquet"))
    return {row["uid"]: row for row in table.filter(pl.col("copy") == 0).to_dicts()}


def test_both_captions_are_kept_and_a_picture_without_one_has_the_generated(kept: Built) -> None:
    measured, places, found = features(kept), index(kept), samples(kept)
    ways = {"own": 0, "generated": 0, "none": 0}
    for uid, (text, facts) in found.items():
        own, made = kept.captions[uid], measured[uid]["generated_caption"]
        assert text == (own or made or "")
        assert facts["generated_caption"] == (made or "") and facts["original_caption"] == ""
        score = -2.0 if made is None else measured[uid]["generated_score"]
        assert facts["generated_score"] == pytest.approx(score, abs=1e-6)
        if own and made:
            ways["own"] += 1
            assert facts["caption_agreement"] == pytest.approx(measured[uid]["caption_agreement"], abs=1e-6)
            assert facts["clip_score"] == pytest.approx(measured[uid]["clip_score"], abs=1e-6)
            assert (facts["synthetic"], places[uid]["generated_tokens"] > 5) == ("", True)
        elif made:
            ways["generated"] += 1
            assert facts["clip_score"] == pytest.approx(measured[uid]["generated_score"], abs=1e-6)
            assert (facts["synthetic"], facts["signature"], facts["lang"]) == (
                "text",
                "image+text",
                measured[uid]["generated_lang"],
            )
            assert places[uid]["synthetic"] == "text" and places[uid]["tokens"] > 5
            assert places[uid]["generated_tokens"] == 0
        else:
            ways["none"] += 1
            assert (facts["generated_by"], places[uid]["generated_tokens"]) == ("", 0)
    assert len(found) == 30 and min(ways.values()) > 0
    manifest = open_release(kept.workspace.root).manifest
    assert manifest["format"] == 3
    (captioner,) = manifest["captioners"]
    assert {f["generated_by"] for _, f in found.values()} == {"", f"{captioner['name']} {captioner['fingerprint']}"}


def test_a_generated_caption_takes_the_place_of_one_that_scores_lower(replaced: Built) -> None:
    measured, places = features(replaced), index(replaced)
    better = 0
    for uid, (text, facts) in samples(replaced).items():
        own, row = replaced.captions[uid], measured[uid]
        wins = row["generated_caption"] is not None and (own is None or row["generated_score"] > row["clip_score"])
        better += wins and own is not None
        assert text == ((row["generated_caption"] if wins else own) or "")
        assert facts["original_caption"] == ((own or "") if wins else "")
        assert facts["synthetic"] == ("text" if wins else "")
        score = row["generated_score"] if wins else row["clip_score"]
        assert facts["clip_score"] == (-2.0 if score is None else pytest.approx(score, abs=1e-6))
        assert places[uid]["clip_score"] == (None if score is None else pytest.approx(score))
    assert 2 <= better <= 22


def test_other_readers_are_told_of_the_further_columns(kept: Built, tmp_path: Path) -> None:
    folder = open_release(kept.workspace.root).folder
    columns = json.loads((folder / "datasets.json").read_text())["json"]
    assert {"generated_caption", "original_caption", "generated_by"} <= set(columns)
    assert pl.read_parquet_schema(str(folder / "index.parquet")).keys() == {*INDEX.names, "generated_tokens"}
    assert '"samples/generated_tokens"' in (folder / "croissant.json").read_text()


def test_a_rule_on_agreement_judges_samples_with_two_captions_only(tmp_path: Path, kept: Built) -> None:
    rows = features(kept)
    agreements = sorted(r["caption_agreement"] for r in rows.values() if r["caption_agreement"] is not None)
    least = agreements[len(agreements) // 2]
    built = captioned_at(tmp_path, select={**SELECT_ALL, "filter": {"min_agreement": least}})
    selection = pl.read_parquet(str(open_release(built.workspace.root).folder / "selection.parquet"))
    dropped = set(selection.filter(pl.col("reason") == "filter:min_agreement")["uid"])
    low = {
        uid for uid, row in rows.items() if row["caption_agreement"] is not None and row["caption_agreement"] < least
    }
    assert dropped == low and len(selection) == len(rows) == len(dropped) + selection["keep"].sum()


def test_the_report_and_explain_show_both_captions_escaped(kept: Built) -> None:
    folder = open_release(kept.workspace.root).folder
    report_release(folder)
    page = (folder / "report.html").read_text()
    uid, row = next(item for item in sorted(features(kept).items()) if item[1]["generated_caption"])
    assert page.count("<b>made:</b>") >= 10
    assert f"{row['generated_caption']} (one)".replace("'", "&#39;") in page
    out = io.StringIO()
    show_story(Console(file=out, width=200), explain(kept.corpus, kept.workspace, uid))
    assert row["generated_caption"] in out.getvalue() and str(kept.captions[uid] or "") in out.getvalue()


def test_markup_in_a_generated_caption_is_text_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "<script>alert(1)</script> [bold]x[/bold] & more"
    monkeypatch.setattr(captioning.ByHash, "_answer", lambda self, bits: Answer(script))
    built = captioned_at(tmp_path, range(4))
    folder = open_release(built.workspace.root).folder
    report_release(folder)
    assert "<script>alert" not in (folder / "report.html").read_text()
    out = io.StringIO()
    show_story(Console(file=out, width=300), explain(built.corpus, built.workspace, next(iter(built.captions))))
    assert script in out.getvalue()


def test_a_forgotten_sample_loses_its_generated_caption_and_nothing_is_captioned_again(tmp_path: Path) -> None:
    built = captioned_at(tmp_path, range(8))
    before = features(built)
    uid = next(uid for uid, row in sorted(before.items()) if row["generated_caption"])
    urls = {}
    for name in ("0000", "0001"):
        rows = read_table(built.workspace.table(PART, "rows", name), ["uid", "url"]).to_pylist()
        urls |= {row["uid"]: row["url"] for row in rows}
    captioning.asked.clear()
    leave_out(built.corpus, built.workspace, PART, opt_out_of([selector_of("url", urls[uid])]))
    after = features(built)
    assert {name for name, value in after[uid].items() if value is not None} == {"uid"}
    assert {key: row for key, row in after.items() if key != uid} == {k: r for k, r in before.items() if k != uid}
    stamp = built.workspace.part_stamp(PART, "features")
    assert stamp is not None
    assert stamp.counts["generated_captions"] == sum(row["generated_caption"] is not None for row in after.values())
    assert score_part(built.corpus, built.workspace, PART).slices_done == 0 and not captioning.asked
