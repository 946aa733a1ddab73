"""The two decorators of the graph's assets: for assets over the corpus, and for assets with a partition per part."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import dagster as dg

from mmdata.engine.stage_fingerprints import CODE_VERSIONS
from pipelines.partitions import PARTS
from pipelines.resources import refresh_settings

OWNERS = refresh_settings().owners
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For faults that may pass, such as an object store's; errors of the data or of the user fail at once."""

NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
"""For assets that the nightly schedules materialise."""


corpus_asset = partial(dg.asset, owners=OWNERS, retry_policy=RETRY, pool="publish", tags={"scope": "corpus"})
"""Decorates the function of an asset over the whole corpus; takes the options of dg.asset."""

part_asset = partial(
    dg.asset,
    owners=OWNERS,
    retry_policy=RETRY,
    tags={"scope": "part"},
    partitions_def=PARTS,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
)
"""Decorates the function of an asset that has a partition for each part; takes the options of dg.asset."""


def stage_version(stage: str) -> str:
    """The code version of a stage, as Dagster wants it."""
    return str(CODE_VERSIONS[stage])
