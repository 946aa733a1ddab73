"""A release on an object store that fails: whatever falls, the next run ends in the release of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmdata.publish.verify import verify_release
from mmdata.releases.collect import collect_garbage
from mmdata.report.stage import report_release
from mmdata.storage.atomic import atomic_path
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import leased
from tests.crash.flaky_store import FAULTS, FlakyStore, flaky_store
from tests.crash.seeds import SEEDS
from tests.support.buckets import s3_bucket
from tests.support.workspaces import Built, add_parts, build, release

BEFORE = {"web-000000": range(16)}
AFTER = {"web-000001": range(12, 28)}
TOLD = ("croissant.json", "report.html")  # they say when they were made


class Store:
    """A bucket, asked past the faults."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        import boto3

        self.bucket = bucket
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def objects(self) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def restore(self, objects: dict[str, bytes]) -> None:
        now = self.objects()
        for key in now.keys() - objects.keys():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        for key, body in objects.items():
            if now.get(key) != body:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=body)


@contextmanager
def flaky_bucket() -> Iterator[tuple[str, FlakyStore, Store]]:
    """A workspace in a bucket behind a store that fails as it is told, and a client that gives up at once."""
    import s3fs

    with s3_bucket() as url, pytest.MonkeyPatch.context() as environment:
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        store = Store(endpoint, url.split("/")[2])
        with flaky_store(endpoint) as (proxy, flaky):
            environment.setenv("AWS_ENDPOINT_URL", proxy)
            environment.setenv("AWS_MAX_ATTEMPTS", "1")
            environment.setattr(s3fs.S3FileSystem, "retries", 1)
            s3fs.S3FileSystem.clear_instance_cache()
            yield url, flaky, store


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, FlakyStore, Store]]:
    with flaky_bucket() as found:
        yield found


def refresh(built: Built) -> str:
    """A part comes, and a release with it."""
    with leased(built.workspace, "part-web-000001", "fetches"):
        add_parts(built, AFTER)
    with leased(built.workspace, "release", "releases"):
        made = release(built)
        report_release(built.workspace.release_dir(made))
    return made


def outcome(objects: dict[str, bytes]) -> dict[str, object]:
    """All but times: leases, when a release was made."""
    found: dict[str, object] = {}
    for key, body in objects.items():
        if "/leases/" in key:
            continue
        if key.endswith(TOLD):
            found[key] = "told"
        elif key.endswith("manifest.json"):
            found[key] = json.loads(body)["digest"]
        else:
            found[key] = body
    return found


@dataclass
class Refresh:
    """A refresh that nothing disturbed: the bucket before and after it, and how many requests it took."""

    built: Built
    first: str
    second: str
    before: dict[str, bytes]
    after: dict[str, bytes]
    requests: int


@pytest.fixture(scope="module")
def undisturbed(bucket: tuple[str, FlakyStore, Store]) -> Refresh:
    url, flaky, store = bucket
    flaky.plan()
    built = build(url, BEFORE, instruct={"formats": ["record"], "languages": ["en"]})
    first = release(built)
    before = store.objects()
    flaky.plan()
    second = refresh(built)
    return Refresh(built, first, second, before, store.objects(), flaky.requests)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_met_a_fault_is_made_whole_by_the_next_run(
    bucket: tuple[str, FlakyStore, Store], undisturbed: Refresh, fault: str, seed: int
) -> None:
    url, flaky, store = bucket
    before, requests, expected = undisturbed.before, undisturbed.requests, outcome(undisturbed.after)
    old = {key: body for key, body in before.items() if f"/{undisturbed.first}/" in key or "/shards/" in key}
    numbers = random.Random(f"{fault} {seed}")
    flaky.plan()
    store.restore(before)
    count = requests if fault == "stale" else numbers.choice([1, 1, 3, 10])
    # not in the last quarter: a fault strikes certain requests only, and none of these may follow
    flaky.plan(fault, numbers.randint(1, requests * 3 // 4), count, seed)
    with _any_error():
        refresh(undisturbed.built)
    assert flaky.fell[fault] >= 1
    where = f"{fault}, seed {seed}"
    now = store.objects()
    assert {key: now.get(key) for key in old} == old, f"{where}: the release of before was touched"
    flaky.plan()
    verify_release(url)
    assert refresh(undisturbed.built) == undisturbed.second, where
    found = outcome(store.objects())
    wrong = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    assert not wrong, f"{where}: {wrong[:5]} differ"


def test_an_upload_in_pieces_that_breaks_off_leaves_nothing_under_its_name(
    bucket: tuple[str, FlakyStore, Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    url, flaky, store = bucket
    flaky.plan()
    real = s3fs.S3FileSystem._put_file

    async def in_pieces(self: object, lpath: str, rpath: str, **given: object) -> object:
        return await real(self, lpath, rpath, **{**given, "chunksize": 5 << 20})

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", in_pieces)
    s3fs.S3FileSystem.clear_instance_cache()  # one that is there has its methods bound already
    target = Workspace(url).shards_dir / "large.tar"
    body = random.Random(0).randbytes(11 << 20)
    for fault in ("error", "refused", "cut"):
        for number in (1, 3, 5):  # the beginning, a piece, the end
            flaky.plan(fault, number, 50)
            with pytest.raises(Exception), atomic_path(target) as draft:  # noqa: B017, PT011 - each client has its own
                draft.write_bytes(body)
            assert flaky.fell[fault]
            flaky.plan()
            assert not target.exists()
    with atomic_path(target) as draft:
        draft.write_bytes(body)
    assert target.read_bytes() == body
    assert store.client.head_object(Bucket=store.bucket, Key="workspace/shards/large.tar")["ContentLength"] == len(body)
    target.unlink()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_lease_whose_answer_was_lost_is_held_all_the_same(bucket: tuple[str, FlakyStore, Store]) -> None:
    """The store has written it, and the client, which cannot know, asks again."""
    import s3fs

    url, flaky, _ = bucket
    flaky.plan()
    workspace = Workspace(url)
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(s3fs.S3FileSystem, "retries", 5)
        for number in (1, 2):
            flaky.plan("late", number, 1)
            with leased(workspace, f"late-{number}", "works", expiry_s=30) as own:
                assert flaky.fell["late"] == 1
                own.check()


def test_a_lease_survives_a_store_that_is_away_for_less_than_its_time(
    bucket: tuple[str, FlakyStore, Store],
) -> None:
    import time

    url, flaky, _ = bucket
    flaky.plan()
    workspace = Workspace(url)
    with leased(workspace, "release", "works", expiry_s=6.0) as own:
        flaky.plan("refused", 1, 10_000)
        time.sleep(3.5)
        assert flaky.fell["refused"], "it tried to renew"
        flaky.plan()
        time.sleep(2.5)
        assert flaky.requests, "it tries again"
        own.check()
    with leased(workspace, "release", "works", expiry_s=1.5) as own:
        flaky.plan("refused", 1, 10_000)
        time.sleep(4.0)
        with pytest.raises(Exception, match="could not be renewed"):
            own.check()
        flaky.plan()


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_collection_that_meets_a_fault_damages_no_release(
    bucket: tuple[str, FlakyStore, Store], undisturbed: Refresh, seed: int
) -> None:
    url, flaky, store = bucket
    flaky.plan()
    built, before = undisturbed.built, undisturbed.after
    store.restore(before)
    flaky.plan()
    collect_garbage(built.workspace, keep=1, grace_s=0)
    requests, expected = flaky.requests, outcome(store.objects())
    assert len(expected) < len(outcome(before))
    numbers = random.Random(seed)
    store.restore(before)
    fault = numbers.choice(("error", "refused", "late", "torn"))
    flaky.plan(fault, numbers.randint(1, requests), numbers.choice([1, 3]), seed)
    with _any_error():
        collect_garbage(built.workspace, keep=1, grace_s=0)
    flaky.plan()
    verify_release(url)
    collect_garbage(built.workspace, keep=1, grace_s=0)
    assert outcome(store.objects()) == expected, f"{fault}, seed {seed}"


@contextmanager
def _any_error() -> Iterator[None]:
    """Passes over whichever error the client of the store raises: each client has its own."""
    try:
        yield
    except Exception:  # noqa: BLE001 - see above
        return
