"""The typed settings of a training run; `training.config_file` fills them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmdata.config import Section
from mmdata.config.section import RelativePath
from training.model_config import Model

StageName = Literal["align", "joint", "instruct"]
PAIR_LOSS_NAMES = ("infonce", "siglip", "triplet", "bce")
STAGES: tuple[StageName, ...] = ("align", "joint", "instruct")


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021) in the LLM."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: float = Field(32, gt=0, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter.")
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="Names of the adapted layers.")


class EarlyStop(Section):
    """When to end a stage that no longer improves in validation."""

    metric: str = Field("val/loss", description="A key of the validation lines in log.jsonl.")
    patience: int = Field(5, ge=1, description="Validations without a better value before the stage ends.")
    min_delta: float = Field(0.0, ge=0, description="Smaller improvements do not count.")
    mode: Literal["min", "max"] = Field("min", description="Whether lower or higher values are better.")


class Stage(Section):
    """The settings that all stages have."""

    steps: int = Field(1000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(256, ge=1, description="Samples per step, over all devices. Rows are packed from them too.")
    micro_batch: int | None = Field(None, ge=1, description="Samples (packed: rows) per forward pass; null: all.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="The last learning rate, as a share of the peak.")
    warmup_steps: int = Field(50, ge=0, description="Steps of linear warm-up.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    weight_decay: float = Field(0.05, ge=0, description="Of AdamW, on matrices only.")
    beta2: float = Field(0.98, gt=0, lt=1, description="Second beta of AdamW; the first is 0.9.")
    grad_clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; null: gradients are not clipped.")
    validate_every: int = Field(100, ge=1, description="Steps between validations.")
    validate_samples: int = Field(512, ge=1, description="The most held-out samples in a validation.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(10, ge=1, description="Steps between log lines.")
    early_stop: EarlyStop | None = Field(None, description="null: run all steps.")


class Align(Stage):
    """Stage 1: contrastive alignment."""

    loss: str | dict[str, float] = Field(
        "infonce",
        description="`infonce` (CLIP), `siglip`, `triplet` (hardest negative), `bce` (image-text matching: hardest "
        "mismatches); or several with weights, such as `{infonce = 1.0, triplet = 0.5, bce = 0.5}`.",
    )
    weights: dict[str, float] = Field(
        default={"image": 1.0, "video": 1.0, "audio": 1.0},
        description="Weight of the losses for each kind of pair, times the weight of each loss.",
    )
    local_loss: bool = Field(True, description="A rank computes its own rows of the logits; needs gather_with_grad.")
    gather_with_grad: bool = Field(True, description="Gradients flow back through gathered features.")
    freeze_image: bool = Field(False, description="Train the image projection only.")
    freeze_text: bool = Field(False, description="Train the text projection only.")
    crop_scale: float = Field(0.9, gt=0, le=1, description="Smallest share of a picture that a random crop keeps.")
    margin: float = Field(0.2, gt=0, description="Margin of the triplet loss, in cosine.")
    masked_weight: float = Field(
        0.0, ge=0, description="Weight of predicting hidden patches of pictures from the text's (and sound's) tokens."
    )
    masked_text_weight: float = Field(
        0.0, ge=0, description="Weight of predicting hidden tokens of captions from the tokens of pictures and sound."
    )
    masked_sound_weight: float = Field(
        0.0, ge=0, description="Weight of predicting hidden 160 ms of sound from the tokens of text and pictures."
    )
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="Share of a picture's patches and of sound that is hidden.")
    mask_text_ratio: float = Field(0.3, gt=0, lt=1, description="Share of a caption's tokens that is hidden.")

    @property
    def pair_losses(self) -> dict[str, float]:
        """The weight of each contrastive loss."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss

    def share_name(self, kind: str, loss: str) -> str:
        """What the loss of one kind of pair is called in the log: the kind; with several losses both."""
        return kind if isinstance(self.loss, str) else f"{kind}/{loss}"

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss by its name in the log."""
        weights = {
            self.share_name(kind, loss): of_kind * of_loss
            for kind, of_kind in self.weights.items()
            for loss, of_loss in self.pair_losses.items()
        }
        return weights | {
            "masked": self.masked_weight,
            "masked_text": self.masked_text_weight,
            "masked_sound": self.masked_sound_weight,
        }

    @property
    def masked_weights(self) -> dict[str, float]:
        """The weight of each kind of masked prediction that is on."""
        weights = {"picture": self.masked_weight, "text": self.masked_text_weight, "sound": self.masked_sound_weight}
        return {kind: weight for kind, weight in weights.items() if weight > 0}

    @model_validator(mode="after")
    def _gradient_is_right(self) -> Align:
        if unknown := set(self.pair_losses) - set(PAIR_LOSS_NAMES):
            raise ValueError(f"loss: {sorted(unknown)} not known; the losses are {', '.join(PAIR_LOSS_NAMES)}")
        of_losses = self.pair_losses.values()
        if min(of_losses, default=0.0) < 0 or not any(of_losses):
            raise ValueError("loss: no weight may be negative, and one must be above 0")
        if unknown := set(self.weights) - {"image", "video", "audio"}:
            raise ValueError(f"weights: {sorted(unknown)} not known; the pairings are image, video, audio")
        if min(self.weights.values(), default=0.0) < 0 or not any(self.weights.values()):
            raise ValueError("weights: none may be negative, and one must be above 0")
        if self.local_loss and not self.gather_with_grad:
            raise ValueError(
                "local_loss without gather_with_grad has a wrong gradient: a feature gets no gradient from the other "
                "ranks' rows. Set gather_with_grad = true, or local_loss = false"
            )
        return self


class Generative(Stage):
    """The settings that stages 2 and 3 share."""

    pack_length: int = Field(1024, ge=16, description="Tokens of a packed row, including media tokens.")
    max_text_tokens: int = Field(512, ge=8, description="Longer text of a sample is cut.")
    kl_weight: float = Field(0.0, ge=0, description="Weight of the KL to the LLM before the stage; 0: off.")
    pack: bool = Field(True, description="Several samples per row; false: one sample per row, padded.")
    chunked_loss: bool = Field(True, description="Compute the loss in chunks, without all logits in memory at once.")


class Joint(Generative):
    """Stage 2: the LLM learns to read the features of frozen encoders."""

    freeze_llm: bool = Field(False, description="Train the connector only.")


class Instruct(Generative):
    """Stage 3: instruction tuning."""

    method: Literal["lora", "full"] = Field("lora", description="Train adapters, or all weights of the LLM.")
    lora: Lora = Lora()
    form: Literal["record", "llava", "chat"] = Field(
        "record", description="Which instruct-*.jsonl of a release is read."
    )
    tasks: list[str] | None = Field(None, description="Of a release: only these tasks; null: all with a text answer.")


class Parallel(Section):
    """How training is spread over devices, and how it saves memory."""

    strategy: Literal["auto", "ddp", "fsdp2"] = Field("auto", description="auto: ddp if there are several processes.")
    tp: int = Field(1, ge=1, description="Tensor-parallel ranks of the LLM.")
    pp: int = Field(1, ge=1, description="Pipeline stages of the LLM (stages 2 and 3).")
    activation_checkpointing: bool = Field(False, description="Recompute each layer in the backward pass.")
    compile: bool = Field(False, description="Compile each layer with torch.compile.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Autocast; auto: bf16 on CUDA.")


class DataSource(Section):
    """A release, or a file of own instructions, that is read beside the RELEASE arguments of the command."""

    path: RelativePath = Field(
        description="A release (its folder, `releases/latest` or a workspace), or a .json or .jsonl file of own "
        "instructions, which stage `instruct` reads (docs/own-data.md). Relative paths count from the file's folder.",
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="How often an epoch reads each sample. With 0.5 an epoch reads one half of the samples, and the "
        "next one the other half; none is read again before all others of its source. Alone, a source has no weight.",
    )
    pictures: list[RelativePath] = Field(
        default=[],
        description="Of an own file: the folders and tar files that its pictures and sounds lie in, searched in this "
        "order; empty: the file's folder.",
    )
    held_out: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Of an own file: share of the records that validate and are not learned. Records with the same "
        "first picture go the same way.",
    )


class Data(Section):
    """What is read, and how."""

    sources: list[DataSource] = Field(
        default=[], description="Releases and own files that are read beside the RELEASE arguments, whose weight is 1."
    )
    workers: int = Field(2, ge=0, description="Reading processes per device.")
    prefetch: int = Field(
        4, ge=1, description="Pieces of 64 samples that each worker reads ahead; two whole batches wait beside them."
    )
    block: int = Field(256, ge=1, description="Neighbouring samples that stay together in the first shuffle.")
    window_blocks: int = Field(64, ge=1, description="Blocks whose samples are shuffled together.")
    frames: int = Field(8, ge=1, le=16, description="Evenly spaced frames of a clip; fewer if they fill half a row.")
    augment: bool = Field(True, description="Vary copies of a sample: crop, colour, speed, gain, caption.")
    generated_captions: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Stages `align` and `joint`: share of the samples with a generated caption beside their text (see "
        "`recaption` of corpus.yaml) that are read with it, drawn anew each epoch.",
    )
    cache_features: bool = Field(
        False,
        description="Run each frozen tower once on each picture, sound or caption, keep what it gives in "
        "`<output>/data/features`, and read that in every step. Towers that a stage trains run in every step.",
    )
    max_bad_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="A larger share of unreadable samples, or of bad records of an own file, is an error.",
    )


class Log(Section):
    """Where log lines go besides log.jsonl."""

    tensorboard: bool = Field(False, description="Needs the `tensorboard` package.")
    wandb: str | None = Field(None, description="A wandb project; needs the `wandb` package.")
    peak_tflops: float | None = Field(None, gt=0, description="Peak of the device, for MFU; null: known for some GPUs.")


class TrainConfig(Section):
    """All settings of a training run."""

    seed: int = Field(0, description="Of the order, dropout and initial weights.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`.")
    hang_s: float | None = Field(
        1800,
        gt=0,
        description="If a rank or its loader does not move for so many seconds, the stacks of all ranks are written to "
        "`<output>/<stage>/hang`, and the run ends with an error that names it; null: nothing is watched.",
    )
    keep_checkpoints: int = Field(2, ge=1, description="The newest checkpoints that are kept.")
    allow_release_change: bool = Field(False, description="Accept checkpoints of another release.")
    model: Model = Model()
    align: Align = Align()
    joint: Joint = Joint()
    instruct: Instruct = Instruct()
    parallel: Parallel = Parallel()
    data: Data = Data()
    log: Log = Log()

    @model_validator(mode="after")
    def _kernel_takes_the_precision(self) -> TrainConfig:
        kernel, precision = self.model.llm.attention, self.parallel.precision
        if (kernel == "flex_attention" and precision == "fp16") or (kernel.startswith("flash") and precision == "fp32"):
            raise ValueError(f'model.llm.attention {kernel} does not run in {precision}. Set attention = "auto"')
        return self
