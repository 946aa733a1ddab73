"""The batches that each stage reads from its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mmdata.errors import UserError
from training.config import TrainConfig
from training.data.augment import RandomCrops
from training.data.batch_readers import EmptySplit, PairReader, RowReader, Share
from training.data.caption_mix import caption_mix
from training.data.examples import Instructions, Pairs, Source
from training.data.feature_cache import NO_FEATURES, CachedFeatures, CachedTexts
from training.data.media_tensors import MediaSpec
from training.data.mixture import JoinedSource, Mixture
from training.data.order import Order, derived_seed
from training.data.own_instructions import OwnInstructions
from training.data.records import MAX_IMAGES, MediaLimits, open_records
from training.data.row_layout import Layout
from training.data.sample_index import TrainingRelease
from training.data.sample_reader import SampleReader
from training.data.training_data import TrainingData
from training.model.encoders import DualEncoder
from training.stages.stage_model import StageModel, generative_settings

Split = Literal["train", "validation"]
MAX_DOCUMENT_PICTURES = 32  # of one document in a row; the document is cut before the next one
CLIP_ROW_SHARE, RECORD_ROW_SHARE = 0.5, 0.75  # of a row, that media may fill; the rest is for text


def make_reader(
    built: StageModel,
    data: TrainingData | TrainingRelease,
    config: TrainConfig,
    split: Split,
    batch_size: int,
    share: Share,
    features: CachedFeatures = NO_FEATURES,
) -> PairReader | RowReader:
    """The reader of a stage's batches from one split of its data.

    Stage `align` reads pairs, stage `joint` pairs and documents, and stage `instruct` instructions. Sources of the
    train split are mixed by their weights; held-out samples are read once each.

    Args: features: tables that are read in place of media and captions; `fill_tables` fills them.
    Raises UserError: a release has no instructions of the configured form, or the ranks do not divide the batch.
    Raises DataError: the split (for training, of any source) has no samples for this stage.
    """
    if batch_size % share.world:
        raise UserError(
            f"{built.stage}.batch_size {batch_size} is not a multiple of {share.world} data-parallel ranks. "
            "Remedy: one that is."
        )
    data = _as_training_data(data)
    reading, model = config.data, built.model
    preprocess, audio_samples = model.vision.preprocess, model.audio.samples if model.audio is not None else 0

    if isinstance(model, DualEncoder):
        scale = config.align.crop_scale if split == "train" else 1.0
        crops = None if scale == 1.0 else RandomCrops(scale, derived_seed(config.seed, 4))
        spec = MediaSpec(preprocess, reading.frames, audio_samples, reading.augment, features, crops)
        source, order = _joined([(_aligned_pairs(r, split, spec, config), w) for r, w in data.releases], split, config)
        tokenize = CachedTexts(features.text) if features.text is not None else model.tokenize
        return PairReader(source, order, batch_size, share, tokenize)
    _, codec = built.generative()
    stage = generative_settings(built.stage, config)
    tokens, lengths = (model.picture_tokens, model.sound_tokens), (stage.pack_length, stage.max_text_tokens)
    layout = Layout(*tokens, *lengths, packed=stage.pack, template=built.stage == "instruct")
    frames, in_documents = (
        pictures_that_fit(most, row_share, layout)
        for most, row_share in ((reading.frames, CLIP_ROW_SHARE), (MAX_DOCUMENT_PICTURES, RECORD_ROW_SHARE))
    )
    spec = MediaSpec(preprocess, frames, audio_samples, reading.augment, features, document_pictures=in_documents)
    sources: list[tuple[Source, float]]
    if built.stage == "joint":
        sources = [(_pairs(release, split, spec, config), weight) for release, weight in data.releases]
    else:
        limits = MediaLimits(spec.frames, audio_samples > 0, pictures_that_fit(MAX_IMAGES, RECORD_ROW_SHARE, layout))
        sources = [(_instructions(release, split, spec, limits, config), weight) for release, weight in data.releases]
        sources += [(OwnInstructions(records, split, spec, limits), weight) for records, weight in data.own]
    source, order = _joined(sources, split, config)
    return RowReader(source, order, batch_size, share, codec, layout)


def make_validation_reader(
    built: StageModel,
    data: TrainingData | TrainingRelease,
    config: TrainConfig,
    batch_size: int,
    share: Share,
    features: CachedFeatures = NO_FEATURES,
) -> PairReader | RowReader | None:
    """The reader of a stage's held-out batches; None if the data hold nothing out for this stage."""
    data = _as_training_data(data)
    if built.stage == "instruct":
        name = f"instruct-{config.instruct.form}-validation.jsonl"
        releases = tuple((r, weight) for r, weight in data.releases if name in r.release.manifest["files"])
        data = replace(data, releases=releases)
    try:
        return make_reader(built, data, config, "validation", batch_size, share, features)
    except EmptySplit:
        return None


def left_out_of(source: Source) -> dict[str, int]:
    """How many samples of a reader's sources the model does not take, by what they hold."""
    counts: Counter[str] = Counter()
    for part in source.sources if isinstance(source, JoinedSource) else [source]:
        if isinstance(part, Pairs | OwnInstructions):
            counts.update(part.left_out)
    return dict(counts)


def _as_training_data(data: TrainingData | TrainingRelease) -> TrainingData:
    return data if isinstance(data, TrainingData) else TrainingData(((data, 1.0),))


def _pairs(release: TrainingRelease, split: Split, spec: MediaSpec, config: TrainConfig) -> Pairs:
    mix = caption_mix(release, split, config.data.generated_captions, derived_seed(config.seed, 5))
    return Pairs(release.samples(split), SampleReader(release), spec, mix)


def _aligned_pairs(release: TrainingRelease, split: Split, spec: MediaSpec, config: TrainConfig) -> Pairs:
    """The pairs of stage `align`. Raises EmptySplit: there are documents only."""
    pairs = _pairs(release, split, spec, config)
    if not len(pairs) and release.samples(split)["pictures"].any():
        raise EmptySplit(
            f"split {split} of release {release.id} holds nothing but documents, and stage `align` leaves "
            "documents out. Remedy: begin with stage `joint`, or add a source of pairs."
        )
    return pairs


def _instructions(
    release: TrainingRelease, split: Split, spec: MediaSpec, limits: MediaLimits, config: TrainConfig
) -> Instructions:
    records = open_records(release, config.instruct.form, split, config.instruct.tasks, limits)
    return Instructions(records, release.samples(split), SampleReader(release), spec)


def _joined(
    sources: Sequence[tuple[Source, float]], split: Split, config: TrainConfig
) -> tuple[Source, Order | Mixture]:
    """Sources with their weights as one source, and its order. Raises EmptySplit: there is nothing to read."""
    if split == "validation":  # each held-out sample counts once, and a source may hold nothing out
        sources = [(source, 1.0) for source, _ in sources if len(source)]
    if not sources:
        raise EmptySplit(f"nothing is held out for this stage in the {split} split")
    if len(sources) > 1 and not all(len(source) for source, _ in sources):
        raise EmptySplit(
            "one of the sources has no samples for this stage, so it cannot have its weight. "
            "Remedy: leave it out for this stage (--stage), or build a release that has them."
        )
    data = config.data
    orders = [
        Order(len(source), derived_seed(config.seed, 4, *([number] if number else [])), data.block, data.window_blocks)
        for number, (source, _) in enumerate(sources)
    ]
    if len(sources) == 1:
        return sources[0][0], orders[0]
    joined = JoinedSource([source for source, _ in sources])
    return joined, Mixture(tuple(orders), tuple(weight for _, weight in sources))


def pictures_that_fit(most: int, row_share: float, layout: Layout) -> int:
    """Pictures (or frames), `most` at most, that fill no more than a share of a row, beside one sound; at least one."""
    if not layout.picture_tokens:
        return most
    room = int(layout.pack_length * row_share) - layout.sound_tokens
    return max(1, min(most, room // layout.picture_tokens))
