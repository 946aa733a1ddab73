"""Asset checks: the audits of mmdata, as checks that Dagster runs.

A blocking check stops the rest of its own run. The stamps keep a refused part out of the releases of other runs.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mmdata.errors import DataError
from mmdata.releases.draft import read_draft
from pipelines.metadata import table
from pipelines.partitions import running_parts
from pipelines.resources import CorpusResource
from pipelines.stage_run import interrupts_end_the_run

if TYPE_CHECKING:
    from mmdata.inspect.audit import Finding
    from mmdata.stage import StageReport

blocking_check = partial(dg.AssetCheckSpec, blocking=True)

DOWNLOAD_SHARE = blocking_check(
    "download_share",
    asset="media",
    description="At least download.min_success_share of the rows of the part were downloaded.",
)
SCORES_SOUND = blocking_check(
    "scores_sound",
    asset="features",
    description="Each uid of the part has one row of features, and a finite cosine if its picture was downloaded.",
)
NO_UID_LOST = blocking_check(
    "no_uid_lost",
    asset="selection",
    description="Each source row of the selected parts is in the selection, with a reason if it was dropped.",
)
NO_SPLIT_LEAKAGE = blocking_check(
    "no_split_leakage",
    asset="selection",
    description="No cluster of near-duplicates has samples in both train and validation.",
)
SHARDS_VERIFY = blocking_check(
    "shards_verify",
    asset="shards",
    description="Every byte of the new shards was read again and agrees with the index; no reused shard is missing.",
)
NO_SUDDEN_CHANGE = dg.AssetCheckSpec(
    "no_sudden_change",
    asset="release",
    description="Size, scores and the shares of sources, domains, languages and modalities are close to the parent's.",
)


def model_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of a trained model."""
    return [
        blocking_check(
            "loss_fell",
            asset=asset,
            description="The loss is finite at each logged step, and lower in the last fifth than in the first.",
        ),
        blocking_check(
            "trained_on_release",
            asset=asset,
            description="The checkpoint names the release, and its digest, that the graph trained it on.",
        ),
    ]


@interrupts_end_the_run()
def download_share(corpus: CorpusResource, part: str) -> dg.AssetCheckResult:
    """See the audit of the same name."""
    from mmdata.inspect import audit

    return _result(DOWNLOAD_SHARE, audit.download_share(*corpus.open(), part))


@interrupts_end_the_run()
def scores_sound(corpus: CorpusResource, part: str) -> dg.AssetCheckResult:
    """See the audit of the same name; a part that fails stays out of releases."""
    from mmdata.inspect import audit

    workspace = corpus.open()[1]
    finding = audit.scores_sound(workspace, part)
    if not finding.passed:
        audit.refuse_part(workspace, part, "features", f"scores_sound: {finding.summary}")
    return _result(SCORES_SOUND, finding)


@interrupts_end_the_run()
def release_check(spec: dg.AssetCheckSpec, corpus: CorpusResource) -> dg.AssetCheckResult:
    """A check of the draft release: the audit of the same name."""
    from mmdata.inspect import audit

    return _result(spec, getattr(audit, spec.name)(corpus.open()[1]))


@interrupts_end_the_run()
def shards_verify(corpus: CorpusResource) -> dg.AssetCheckResult:
    """Whether the new shards of the draft release agree with its index, byte by byte."""
    from mmdata.inspect.audit import Finding
    from mmdata.publish.verify import verify_shards

    _, workspace = corpus.open()
    try:
        report = verify_shards(workspace, read_draft(workspace).release_id)
    except DataError as error:
        return _result(SHARDS_VERIFY, Finding(False, str(error)))
    return _result(SHARDS_VERIFY, Finding(True, "every new byte agrees with the index", report.counts))


@interrupts_end_the_run()
def model_sound(asset: str, report: "StageReport") -> list[dg.AssetCheckResult]:
    """Whether a stage's loss fell, and whether it was trained on the release that it names."""
    from mmdata.inspect import training_runs
    from mmdata.releases.manifest import open_release

    folder, release = Path(report.paths["model"]), open_release(report.paths["release"])
    loss_fell, trained_on_release = model_specs(asset)
    return [
        _result(loss_fell, training_runs.loss_fell(folder)),
        _result(trained_on_release, training_runs.trained_on(folder, release.id, str(release.manifest["digest"]))),
    ]


@dg.asset_check(
    asset="source_catalog", description="No part has failed for good or was refused, and every source file is readable."
)
def no_failed_parts(context: dg.AssetCheckExecutionContext, corpus: CorpusResource) -> dg.AssetCheckResult:
    """See the audit of the same name."""
    from mmdata.inspect import audit

    finding = audit.no_failed_parts(*corpus.open(), running=running_parts(context.instance))
    return dg.AssetCheckResult(passed=finding.passed, description=finding.summary, metadata=_metadata(finding))


def _result(spec: dg.AssetCheckSpec, finding: "Finding") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=finding.passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        description=finding.summary,
        metadata=_metadata(finding),
        severity=dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN,
    )


def _metadata(finding: "Finding") -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(int(value))
        for name, value in finding.numbers.items()
    }
    if finding.examples:
        metadata["examples"] = table([dict(example) for example in finding.examples])
    return metadata
