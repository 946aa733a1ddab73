"""10,000 parts: the sensor's tick, the list of partitions, an asset's page in the UI, `mmdata status`.

Where there is a peer, it makes one query for each part.

Dagster's storage is SQLite in a temporary folder. With DAGSTER_PG_HOST and its companions set
(dagster_home/postgres.yaml) and the extra `postgres` installed, the same is measured on PostgreSQL too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.harness import Row, Run, measure, start_clock
from mmdata.config import Corpus
from mmdata.config.load import parse_corpus
from mmdata.engine.stage_fingerprints import features_input, rows_input, stage_settings
from mmdata.fingerprint import fingerprint
from mmdata.workspace.layout import PART_STAGES, Catalog, Part, PartStamp, Workspace

TICK_GOAL_S = 60.0
STORAGES = ("sqlite", "postgres")
_ASSET_PAGE = """{ assetNodeOrError(assetKey: {path: ["media"]}) { ... on AssetNode {
  partitionKeys
  partitionStats { numMaterialized numPartitions numFailed numMaterializing }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions materializingPartitions failedPartitions unmaterializedPartitions } } } } }"""


def run(quick: bool) -> list[Row]:
    """Seconds of each operation, in a new process; half of the parts are stale."""
    parts = 200 if quick else 10_000
    rows = []
    for storage in STORAGES if os.environ.get("DAGSTER_PG_HOST") else STORAGES[:1]:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            made = measure(_fill, str(home), storage, parts)
            rows.append(_row(f"add {parts:,} partitions, {storage}", made, made, "no peer"))
            listed = measure(_list, str(home))
            rows.append(_row(f"list {parts:,} partitions, {storage}", listed, listed, "no peer"))
            tick, peer = measure(_tick, str(home)), measure(_query_each_part, str(home))
            note = f"peer: only the queries, one per stale part; a tick may take {TICK_GOAL_S:g} s"
            rows.append(_row(f"sensor tick, {parts:,} parts, {storage}", tick, peer, note))
            page = measure(_asset_page, str(home))
            rows.append(_row(f"UI, an asset of {parts:,} partitions, {storage}", page, page, "no peer"))
            if storage == "sqlite":
                status = measure(_status, str(home))
                rows.append(_row(f"mmdata status, {parts:,} parts", status, status, "no peer"))
    return rows


def _row(name: str, ours: Run, peer: Run, note: str) -> Row:
    return Row(name, "s", ours.wall_s, peer.wall_s, ours.peak_mib, peer.peak_mib, lower_is_better=True, note=note)


def _corpus(home: Path) -> tuple[Corpus, Workspace]:
    source = {"name": "web", "kind": "laion", "files": "inbox/*.parquet"}
    corpus = parse_corpus({"workspace": str(home / "workspace"), "sources": [source], "score": {"model": "demo"}})
    return corpus, Workspace(corpus.workspace)


def _instance(home: Path) -> dg.DagsterInstance:
    from pipelines.instance import open_instance

    os.environ |= {"DAGSTER_HOME": str(home), "MMDATA_CONFIG": str(home / "corpus.yaml")}
    return open_instance(_corpus(home)[1])


def _fill(folder: str, storage: str, count: int) -> float:
    """Write stamps of all parts (features only of the first half); then add Dagster's partitions, which is measured."""
    from pipelines.home import settings_template

    home = Path(folder)
    templates = settings_template().parent
    postgres = (templates / "postgres.yaml").read_text() if storage == "postgres" else ""
    (home / "dagster.yaml").write_text((templates / "dagster.yaml").read_text() + postgres)
    corpus, workspace = _corpus(home)
    (home / "corpus.yaml").write_text(
        "workspace: ./workspace\nsources: [{name: web, kind: laion, files: inbox/*.parquet}]\nscore: {model: demo}\n"
    )
    names = [f"web-{number:06d}" for number in range(count)]
    parts = {name: Part(name, "web", f"{name}.parquet", 0, 200_000, fingerprint(name)) for name in names}
    workspace.write_catalog(Catalog(parts=parts))
    for number, part in enumerate(parts.values()):
        _stamp(corpus, workspace, part, finished=number < count // 2)
    with _instance(home) as instance:
        start_clock()
        instance.add_dynamic_partitions("parts", names)
    return float(count)


def _stamp(corpus: Corpus, workspace: Workspace, part: Part, *, finished: bool) -> None:
    digest = fingerprint(part.name, "table")
    inputs = {"rows": rows_input(part), "media": digest, "features": features_input(digest, digest)}
    for stage in PART_STAGES if finished else PART_STAGES[:2]:
        made_by = fingerprint(stage_settings(corpus, part, stage), inputs[stage])
        workspace.write_part_stamp(part.name, stage, PartStamp(made_by, digest, ("0000",), part.stop))


def _list(folder: str) -> float:

    with _instance(Path(folder)) as instance:
        start_clock()
        return float(len(instance.get_dynamic_partitions("parts")))


def _tick(folder: str) -> float:
    from pipelines.automation import new_parts
    from pipelines.resources import CorpusResource

    with _instance(Path(folder)) as instance:
        corpus = CorpusResource(config_path=str(Path(folder) / "corpus.yaml"))
        context = dg.build_sensor_context(instance=instance, resources={"corpus": corpus})
        start_clock()
        result = new_parts(context)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests
    return float(len(result.run_requests))


def _query_each_part(folder: str) -> float:
    from pipelines.partitions import PARTITION_TAG

    with _instance(Path(folder)) as instance:
        names = instance.get_dynamic_partitions("parts")
        start_clock()
        for name in names[len(names) // 2 :]:
            instance.get_runs(filters=dg.RunsFilter(tags={PARTITION_TAG: name}), limit=1)
    return float(len(names))


def _asset_page(folder: str) -> float:
    """The query of the UI's page of an asset: all partitions and their states; half of them are materialised."""
    from mmdata.demo.demo_folder import free_port

    with _instance(Path(folder)) as instance:
        names = instance.get_dynamic_partitions("parts")
        for name in names[: len(names) // 2]:
            instance.report_runless_asset_event(dg.AssetMaterialization("media", partition=name))
    port = free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-m", "pipelines.definitions", "-p", str(port)]
    with (
        (Path(folder) / "webserver.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as server,
    ):
        try:
            _answer(port, "{ version }", within_s=120)
            start_clock()
            page = _answer(port, _ASSET_PAGE, within_s=120)["assetNodeOrError"]
        finally:
            server.terminate()
    materialised = len(page["assetPartitionStatuses"]["materializedPartitions"])
    assert (materialised, len(page["partitionKeys"])) == (len(names) // 2, len(names))
    return float(len(names))


def _answer(port: int, query: str, within_s: float) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=within_s) as answer:
                return json.load(answer)["data"]
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _status(folder: str) -> float:
    from mmdata.inspect.corpus_status import corpus_status

    corpus, workspace = _corpus(Path(folder))
    started = time.perf_counter()
    corpus_status(corpus, workspace)
    return time.perf_counter() - started
