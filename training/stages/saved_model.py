"""The model inside a checkpoint. Evaluation, export and the scorer of stage `align` read trained models through it."""

from __future__ import annotations

from pathlib import Path

from mmdata.errors import DataError
from training.checkpoint.checkpoints import find_checkpoint, load_weights, read_progress
from training.config import TrainConfig
from training.stages.stage_model import StageModel, build_model, initialise_weights


def load_model(checkpoint: Path) -> tuple[StageModel, TrainConfig]:
    """Build the model of a checkpoint with its trained weights, on the CPU and in evaluation mode.

    Args:
        checkpoint: a checkpoint's folder, or the folder of a stage.

    Raises:
        UserError: there is no checkpoint.
        DataError: the checkpoint is broken.
    """
    folder = find_checkpoint(checkpoint)
    progress = read_progress(folder)
    config = TrainConfig.model_validate(progress.config)
    built = build_model(progress.stage, config)
    initialise_weights(built, config, None)
    if missing := load_weights(folder, built.model, lambda _: True):
        raise DataError(
            f"{folder}: {len(missing)} tensors of the model are missing, such as {missing[0]}. "
            "Remedy: use an older checkpoint."
        )
    built.model.eval()
    return built, config
