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


def corpus_asset(
    group: str,
    *kinds: str,
    pool: str = "publish",
    code_version: str | None = None,
    **options: Unpack[AssetOptions],
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorate the function of an asset over the whole corpus.

    Args:
        kinds: tags by which the UI shows what the asset is made with.
        pool: whose slots its runs wait for.
        code_version: raised when the code writes something else.
    """
    return dg.asset(
        group_name=group,
        kinds=set(kinds),
        owners=OWNERS,
        tags={"scope": "corpus"},
        retry_policy=RETRY,
        pool=pool,
        code_version=code_version,
        **options,
    )


def part_asset(
    group: str, *kinds: str, stage: str, pool: str | None = None, **options: Unpack[AssetOptions]
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorate the function of an asset that has a partition for each part.

    Args:
        stage: the stage that makes it; its code version is the asset's.
    """
    return dg.asset(
        group_name=group,
        kinds=set(kinds),
        owners=OWNERS,
        tags={"scope": "part"},
        retry_policy=RETRY,
        pool=pool,
        code_version=stage_version(stage),
        partitions_def=PARTS,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        **options,
    )


def stage_version(stage: str) -> str:
    """The code version of a stage, as Dagster wants it."""
    return str(CODE_VERSIONS[stage])
