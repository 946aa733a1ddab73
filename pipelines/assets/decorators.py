"""The two decorators of the graph's assets: for assets over the corpus, and for assets with a partition per part."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict, Unpack

import dagster as dg

from mmdata.engine.freshness import CODE_VERSIONS
from pipelines.partitions import PARTS
from pipelines.resources import refresh_settings

OWNERS = refresh_settings().owners
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For faults that may pass, such as an object store's; errors of the data or of the user fail at once."""

NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
"""For assets that the nightly schedules materialise."""


class AssetOptions(TypedDict, total=False):
    """Options of dg.asset that differ from asset to asset."""

    deps: list[Any]
    check_specs: list[dg.AssetCheckSpec]
    freshness_policy: dg.FreshnessPolicy
    pool: str | None
    code_version: str
    tags: dict[str, str]
    partitions_def: dg.PartitionsDefinition
    backfill_policy: dg.BackfillPolicy


Decorator = Callable[[Callable[..., Any]], dg.AssetsDefinition]


def corpus_asset(group: str, *kinds: str, **options: Unpack[AssetOptions]) -> Decorator:
    """Decorate the function of an asset over the whole corpus.

    Args:
        kinds: tags by which the UI shows what the asset is made with.
    """
    settings: AssetOptions = {"tags": {"scope": "corpus"}, "pool": "publish"}
    settings.update(options)
    return dg.asset(group_name=group, kinds=set(kinds), owners=OWNERS, retry_policy=RETRY, **settings)


def part_asset(group: str, *kinds: str, stage: str, **options: Unpack[AssetOptions]) -> Decorator:
    """Decorate the function of an asset that has a partition for each part.

    Args:
        stage: the stage that makes it; its code version is the asset's.
    """
    settings: AssetOptions = {
        "tags": {"scope": "part"},
        "pool": None,
        "code_version": stage_version(stage),
        "partitions_def": PARTS,
        "backfill_policy": dg.BackfillPolicy.multi_run(1),
    }
    settings.update(options)
    return corpus_asset(group, *kinds, **settings)


def stage_version(stage: str) -> str:
    """The code version of a stage, as Dagster wants it."""
    return str(CODE_VERSIONS[stage])
