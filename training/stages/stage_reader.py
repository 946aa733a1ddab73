"""The batches that each stage reads from a release."""

from __future__ import annotations

from mmdata.errors import UserError
from training.config import TrainConfig
from training.data.augment import RandomCrops
from training.data.batch_readers import EmptySplit, PairReader, RowReader, Share
from training.data.caption_mix import CaptionMix, caption_mix
from training.data.examples import Instructions, Pairs
from training.data.feature_cache import NO_FEATURES, CachedFeatures, CachedTexts
from training.data.media_tensors import MediaSpec
from training.data.order import Order, derived_seed
from training.data.records import MAX_IMAGES, MediaLimits, open_records
from training.data.row_layout import Layout
from training.data.sample_index import TrainingRelease
from training.data.sample_reader import SampleReader
from training.model.encoders import DualEncoder
from training.stages.stage_model import StageModel, generative_settings

MAX_DOCUMENT_PICTURES = 32  # of one document in a row; the document is cut before the next one
CLIP_ROW_SHARE, RECORD_ROW_SHARE = 0.5, 0.75  # of a row, that media may fill; the rest is for text


def make_reader(
    built: StageModel,
    release: TrainingRelease,
    config: TrainConfig,
    split: str,
    batch_size: int,
    share: Share,
    features: CachedFeatures = NO_FEATURES,
) -> PairReader | RowReader:
    """The reader of a stage's batches from one split of a release.

    Stage `align` reads pairs, stage `joint` pairs and documents, and stage `instruct` instructions.

    Args: features: tables that are read in place of media and captions; `fill_tables` fills them.
    Raises UserError: the release has no instructions of the configured form, or the ranks do not divide the batch.
    Raises DataError: the split has no samples for this stage.
    """
    if batch_size % share.world:
        raise UserError(
            f"{built.stage}.batch_size {batch_size} is not a multiple of {share.world} data-parallel ranks. "
            "Remedy: one that is."
        )
    samples, reader = release.samples(split), SampleReader(release)
    data, model = config.data, built.model
    preprocess, audio_samples = model.vision.preprocess, model.audio.samples if model.audio is not None else 0

    def order(n: int) -> Order:
        return Order(n, derived_seed(config.seed, 4), data.block, data.window_blocks)

    def mix() -> CaptionMix | None:
        return caption_mix(release, split, data.generated_captions, derived_seed(config.seed, 5))

    if isinstance(model, DualEncoder):
        scale = config.align.crop_scale if split == "train" else 1.0
        crops = None if scale == 1.0 else RandomCrops(scale, derived_seed(config.seed, 4))
        spec = MediaSpec(preprocess, data.frames, audio_samples, data.augment, features, crops)
        pairs = Pairs(samples, reader, spec, mix())
        if not len(pairs) and samples["pictures"].any():
            raise EmptySplit(
                f"split {split} of release {release.id} holds nothing but documents, and stage `align` leaves "
                "documents out. Remedy: begin with stage `joint`, or add a source of pairs."
            )
        tokenize = CachedTexts(features.text) if features.text is not None else model.tokenize
        return PairReader(pairs, order(len(pairs)), batch_size, share, tokenize)
    _, codec = built.generative()
    stage = generative_settings(built.stage, config)
    tokens, lengths = (model.picture_tokens, model.sound_tokens), (stage.pack_length, stage.max_text_tokens)
    layout = Layout(*tokens, *lengths, packed=stage.pack, template=built.stage == "instruct")
    frames, in_documents = (
        pictures_that_fit(most, row_share, layout)
        for most, row_share in ((data.frames, CLIP_ROW_SHARE), (MAX_DOCUMENT_PICTURES, RECORD_ROW_SHARE))
    )
    spec = MediaSpec(preprocess, frames, audio_samples, data.augment, features, document_pictures=in_documents)
    source: Pairs | Instructions
    if built.stage == "joint":
        source = Pairs(samples, reader, spec, mix())
    else:
        limits = MediaLimits(spec.frames, audio_samples > 0, pictures_that_fit(MAX_IMAGES, RECORD_ROW_SHARE, layout))
        records = open_records(release, config.instruct.form, split, config.instruct.tasks, limits)
        source = Instructions(records, samples, reader, spec)
    return RowReader(source, order(len(source)), batch_size, share, codec, layout)


def make_validation_reader(
    built: StageModel,
    release: TrainingRelease,
    config: TrainConfig,
    batch_size: int,
    share: Share,
    features: CachedFeatures = NO_FEATURES,
) -> PairReader | RowReader | None:
    """The reader of a stage's held-out batches; None if the release holds nothing out for this stage."""
    records = f"instruct-{config.instruct.form}-validation.jsonl"
    if built.stage == "instruct" and records not in release.release.manifest["files"]:
        return None
    try:
        return make_reader(built, release, config, "validation", batch_size, share, features)
    except EmptySplit:
        return None


def pictures_that_fit(most: int, row_share: float, layout: Layout) -> int:
    """Pictures (or frames), `most` at most, that fill no more than a share of a row, beside one sound; at least one."""
    if not layout.picture_tokens:
        return most
    room = int(layout.pack_length * row_share) - layout.sound_tokens
    return max(1, min(most, room // layout.picture_tokens))
