"""The code location: the list of everything that Dagster loads."""

from __future__ import annotations

import dagster as dg

from pipelines import automation
from pipelines.alert_sensor import alerts
from pipelines.assets import curate, ingest, publish, train
from pipelines.checks import no_failed_parts
from pipelines.resources import CorpusResource

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([ingest, curate, publish, train]),
    asset_checks=[no_failed_parts],
    jobs=[
        automation.refresh_catalog,
        automation.build_part,
        automation.publish_release,
        automation.train_release,
        automation.compare_release,
        automation.train_filter_network,
    ],
    schedules=[automation.refresh, automation.release],
    sensors=[automation.new_parts, alerts],
    resources={"corpus": CorpusResource()},
    executor=dg.in_process_executor,  # a run has its own process already; another for each step would cost seconds
)
