"""What all assets of the graph have in common, by their scope."""

from __future__ import annotations

import dagster as dg

from mmdata.engine.stage_fingerprints import CODE_VERSIONS
from pipelines.assets.decorators import RETRY, stage_version
from pipelines.definitions import defs

STAGE_OF_ASSET = {"source_rows": "rows", "media": "media", "features": "features"}


def test_assets_of_parts_have_partitions_and_the_code_version_of_their_stage() -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for name, spec in specs.items():
        if name in STAGE_OF_ASSET:
            assert spec.tags["scope"] == "part"
            assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)
            assert spec.code_version == stage_version(STAGE_OF_ASSET[name])
        else:
            assert spec.tags["scope"] == "corpus"
            assert spec.partitions_def is None
    assert stage_version("rows") == str(CODE_VERSIONS["rows"])


def test_faults_that_may_pass_are_tried_again_in_every_asset_and_pools_bound_the_rest() -> None:
    graph = defs.resolve_asset_graph()
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.get_all_asset_keys()}
    assert pools["source_rows"] == set()
    assert (pools["media"], pools["features"], pools["selection"]) == ({"download"}, {"gpu"}, {"publish"})
    for key in graph.get_all_asset_keys():
        assert graph.get(key).assets_def.op.retry_policy == RETRY
