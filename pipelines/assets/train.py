"""Train: models on a release. It runs when a person starts it, each stage in a process of its own."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg
from pydantic import Field

from mmdata.config import Corpus
from mmdata.errors import UserError
from mmdata.inspect.training_runs import ModelStage, show_captions
from mmdata.releases.manifest import Release, open_release
from mmdata.stage import Progress, StageReport
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace
from pipelines import checks, launch
from pipelines.assets.decorators import corpus_asset
from pipelines.assets.publish import release
from pipelines.metadata import to_result
from pipelines.resources import CorpusResource

ReleaseOf = Callable[[Workspace], Release]

model_asset = partial(corpus_asset, group_name="train", pool="gpu", code_version="1")


class TrainOn(dg.Config):
    """The release that the models are trained on."""

    release: str = Field(default="latest", description="The id of a release in the workspace, or `latest`.")


class CompareArms(dg.Config):
    """The training sets that are compared."""

    arms: list[str] = Field(
        default_factory=list,
        description="As `mmdata compare` takes them; empty: `raw`, the parent of the latest release, and that release.",
    )


class TrustedSeed(dg.Config):
    """What a data filtering network is trained on."""

    release: str = Field(description="The folder or id of a release whose pairs are trusted.")
    name: str = Field(default="dfn", description="The network is written to `networks/<name>` in a local workspace.")
    set: list[str] = Field(default_factory=list, description="`key=value` settings of training.")


class MeasureOn(dg.Config):
    """How many samples are measured."""

    samples: int = Field(
        default=5000, ge=1, description="Use at most this many held-out samples; retrieval searches among these."
    )
    answers: int | None = Field(
        default=None, ge=0, description="Generate an answer for this many samples; null: `train.answers`."
    )


@model_asset(kinds={"pytorch", "openclip"}, deps=[release], check_specs=checks.model_specs("aligned_model"))
def aligned_model(context: dg.AssetExecutionContext, config: TrainOn, corpus: CorpusResource) -> dg.MaterializeResult:
    """Stage 1: encoders of pictures and texts, trained by contrastive learning on the pairs of the release.

    They can be the scorer of the next refresh: see `scorer` in the metadata.
    """
    return _train(context, corpus, "align", lambda workspace: _named_release(workspace, config.release))


@model_asset(kinds={"pytorch", "huggingface"}, deps=[aligned_model], check_specs=checks.model_specs("joint_model"))
def joint_model(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Stage 2: a language model that reads what the frozen encoders give, trained on the captions of the release."""
    return _train(context, corpus, "joint", _release_of(context, "aligned_model"))


@model_asset(kinds={"pytorch", "huggingface"}, deps=[joint_model], check_specs=checks.model_specs("instructed_model"))
def instructed_model(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Stage 3: the model that answers questions about pictures, trained on the instruction records of the release."""
    return _train(context, corpus, "instruct", _release_of(context, "joint_model"))


@model_asset(kinds={"pytorch", "markdown"}, deps=[instructed_model])
def evaluation(context: dg.AssetExecutionContext, config: MeasureOn, corpus: CorpusResource) -> dg.MaterializeResult:
    """The three models, measured on the held-out split: retrieval, captions, answers, perplexity.

    The captions are then shown beside their pictures in the report of the release.
    """

    def work(settings: Corpus, *_: object) -> StageReport:
        trained = _latest_report(context, "instructed_model")
        release, models = open_release(trained["release"]), Path(trained["model"]).parent
        answers = settings.train.answers if config.answers is None else config.answers
        report = launch.evaluate_stages(context, release, models, samples=config.samples, answers=answers)
        page = show_captions(release, settings.train.output, models)
        return report if page is None else replace(report, paths={**report.paths, "report": str(page)})

    return to_result(corpus.run(context, "evaluation", work))


@corpus_asset(group_name="train", kinds={"pytorch", "html"}, pool="gpu", code_version="1", deps=[release])
def comparison(context: dg.AssetExecutionContext, config: CompareArms, corpus: CorpusResource) -> dg.MaterializeResult:
    """Which training set makes the better model: the release, its parent or the raw corpus, with intervals.

    Heads on the frozen towers of the scorer are trained alike on each, and measured on pairs that none has seen.
    """

    def work(settings: Corpus, workspace: Workspace, progress: Progress) -> StageReport:
        from training.compare.compare_page import publish_comparison
        from training.compare.experiment import compare
        from training.compare.settings import cache_folder, experiment_of

        arms = config.arms or _arms_of_latest(workspace)
        cache = cache_folder(settings, None)
        outcome = compare(settings, experiment_of(settings, arms, {}), cache, progress)
        return publish_comparison(outcome, cache / "comparison.html")

    return to_result(corpus.run(context, "comparison", work))


@model_asset(kinds={"pytorch", "openclip"}, deps=[release])
def filter_network(
    context: dg.AssetExecutionContext, config: TrustedSeed, corpus: CorpusResource
) -> dg.MaterializeResult:
    """A data filtering network, trained on a trusted release, and whether it tells mismatches better than the scorer.

    Only a network that does may decide: name it in `score.networks`.
    """

    def work(settings: Corpus, workspace: Workspace, progress: Progress) -> StageReport:
        from training.network.train_network import network_report, train_network

        if not is_local(workspace.root):
            raise UserError(f"{workspace.root}: not on a local disk. Remedy: `mmdata network RELEASE OUTPUT`.")
        output = Path(workspace.root.path) / "networks" / config.name
        is_folder = "/" in config.release
        seed = open_release(config.release) if is_folder else _named_release(workspace, config.release)
        progress("filter_network", 0, 0)
        checked = train_network(str(seed.folder), settings.score, output, config.set)
        return network_report(checked, output)

    return to_result(corpus.run(context, "filter_network", work))


def _arms_of_latest(workspace: Workspace) -> list[str]:
    """The raw corpus, the latest release's parent if it is still there, and the latest release."""
    latest = _named_release(workspace, "latest")
    parent = latest.manifest["parent"]
    return ["raw", *([f"parent:{parent}"] if parent in workspace.releases() else []), f"release:{latest.id}"]


def _train(
    context: dg.AssetExecutionContext, corpus: CorpusResource, stage: ModelStage, release_of: ReleaseOf
) -> dg.MaterializeResult:
    def work(settings: Corpus, workspace: Workspace, progress: Progress) -> StageReport:
        return launch.train_stage(context, settings, workspace, release_of(workspace), stage, progress)

    report = corpus.run(context, stage, work)
    return to_result(report, *checks.model_sound(context.asset_key.to_user_string(), report))


def _named_release(workspace: Workspace, name: str) -> Release:
    chosen = workspace.latest() if name == "latest" else name
    if chosen is None:
        raise UserError(f"{workspace.root}: no release yet. Remedy: materialise `release` first.")
    return open_release(workspace.release_dir(chosen))


def _release_of(context: dg.AssetExecutionContext, asset: str) -> ReleaseOf:
    """The release that the model of an asset was trained on."""
    return lambda _: open_release(_latest_report(context, asset)["release"])


def _latest_report(context: dg.AssetExecutionContext, asset: str) -> dict[str, str]:
    """The paths of `release` and `model` that an asset last reported.

    A stage continues from that model on the same release, even if a newer release was made meanwhile.
    """
    event = context.instance.get_latest_materialization_event(dg.AssetKey(asset))
    if event is None or event.asset_materialization is None:
        raise UserError(f"{asset} was never materialised here. Remedy: materialise it first, or run `train_release`.")
    metadata = event.asset_materialization.metadata
    return {name: str(metadata[name].value) for name in ("release", "model")}
