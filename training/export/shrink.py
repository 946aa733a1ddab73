"""Makes smaller language models from an exported one: int8 weights, fewer MLP neurons, or half the layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdata.errors import DataError, UserError
from training.data.batch_readers import RowReader, Share
from training.data.batch_stream import batches
from training.data.batch_types import RowBatch, to_device
from training.data.order import derived_seed
from training.data.sample_index import TrainingRelease
from training.data.text_codec import IGNORED
from training.distributed.process_mesh import Mesh
from training.export.exported import Exported, build_plain, layers_name, plain_state, quiet
from training.model.fusion import Entry, FusedLayer, decoder_list
from training.model.llm import is_tied
from training.model.losses import chunked_cross_entropy, chunked_kl
from training.model.multimodal_lm import Connector, MultimodalLm
from training.stages.generative import global_tokens, with_stand_ins
from training.stages.stage_model import stage_settings, train_mode
from training.stages.stage_reader import make_reader
from training.trainer import learning_rate, make_optimizer, precision

WIDTH_MULTIPLE = 8  # matrix units of GPUs need widths that are multiples of it
TEMPERATURE, DATA_LOSS_SHARE = 2.0, 0.5  # for distillation (Hinton et al. 2015)
MLPS = (("gate_proj", "up_proj", "down_proj"), ("up_proj", "down_proj"), ("fc1", "fc2"))
"""Known names of an MLP's linear layers: first those that write its neurons, last the one that reads them."""


def quantise(folder: Path, output: Path) -> None:
    """Write a folder's language model with int8 weights, one scale per row, and float activations (torchao).

    Word embeddings, the output head, the encoders and the connector are not changed.

    Raises UserError: torchao is not installed.
    """
    from transformers import AutoModelForCausalLM, TorchAoConfig

    try:
        with quiet():
            from torchao.quantization import Int8WeightOnlyConfig

            settings = TorchAoConfig(Int8WeightOnlyConfig())
            llm = AutoModelForCausalLM.from_pretrained(
                folder, dtype="float32", trust_remote_code=False, quantization_config=settings
            )
            llm.save_pretrained(output)
    except ImportError as error:
        raise UserError(f"int8 needs torchao: {error}. Remedy: install mmdata[train].") from error


def prune(folder: Path, output: Path, share: float) -> int:
    """Write a folder's language model without the weakest neurons of its MLPs, so that its matrices are smaller.

    A neuron's strength is the product of the 2-norms of the weights that write and read it; scaling one up and the
    other down does not change it. Each layer loses the same number, since all share one `intermediate_size`.

    Args: share: of each MLP's neurons that is removed. The number that stays is rounded up to a multiple of 8.
    Returns: The new `intermediate_size`.
    Raises UserError: the MLPs are of an unknown kind, or too narrow.
    """
    from transformers import AutoModelForCausalLM

    with quiet():
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    config = copy.deepcopy(llm.config)
    settings = config.get_text_config()
    width = int(getattr(settings, "intermediate_size", 0) or 0)
    kept = min(width, WIDTH_MULTIPLE * -(-round(width * (1 - share)) // WIDTH_MULTIPLE))
    if width and kept == width:
        raise UserError(f"prune {share:g} takes nothing away from MLPs of {width} neurons. Remedy: a larger share.")
    state = llm.state_dict()
    for number, layer in enumerate(decoder_list(llm)):
        mlp_name, (*writers, reader) = _find_mlp(layer, width, type(llm).__name__)
        prefix = f"{layers_name(llm)}.{number}.{mlp_name}"
        state |= _without_weakest(state, [f"{prefix}{writer}" for writer in writers], f"{prefix}{reader}", kept)
    settings.intermediate_size = kept
    with quiet():
        build_plain(llm, config, state).save_pretrained(output)
    return kept


def _find_mlp(layer: nn.Module, width: int, model: str) -> tuple[str, tuple[str, ...]]:
    """The name of a layer's MLP with a final dot, and the names of its linear layers."""
    for name, module in layer.named_modules():
        for names in MLPS:
            children = [getattr(module, child, None) for child in names]
            if not all(isinstance(child, nn.Linear) for child in children):
                continue
            *writers, reader = cast(list[nn.Linear], children)
            if reader.in_features == width and all(writer.out_features == width for writer in writers):
                return f"{name}." if name else "", names
    kinds = " or ".join("/".join(names) for names in MLPS)
    raise UserError(
        f"prune: {model} has MLPs of another kind than linear layers {kinds} of `intermediate_size` neurons. "
        "Remedy: use int8 or distillation instead."
    )


def _without_weakest(state: Mapping[str, Tensor], writers: list[str], reader: str, kept: int) -> dict[str, Tensor]:
    """The tensors of an MLP's linear layers with its `kept` strongest neurons only."""
    strength = state[f"{reader}.weight"].norm(dim=0)
    for name in writers:
        strength = strength * state[f"{name}.weight"].norm(dim=1)
    chosen = strength.topk(kept).indices.sort().values
    pruned = {f"{reader}.weight": state[f"{reader}.weight"][:, chosen]}
    for key in (f"{name}.{kind}" for name in writers for kind in ("weight", "bias")):
        if key in state:
            pruned[key] = state[key][chosen]
    return pruned


def halved(teacher: Exported) -> Exported:
    """A student with every second layer (DistilBERT, Sanh et al. 2019). Media enter it where they enter the teacher.

    The student shares the teacher's encoders; everything else is a copy.

    Raises UserError: the language model has only one layer.
    """
    model = cast(MultimodalLm, teacher.model)
    count = len(decoder_list(model.llm))
    if count < 2:
        raise UserError("distillation halves the layers, but the language model has only one")
    layers = list(range(0, count, 2))
    prefix = f"{layers_name(model.llm)}."
    state, _ = plain_state(model.llm)
    student_state = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    for new, old in enumerate(layers):
        for key, tensor in state.items():
            if key.startswith(f"{prefix}{old}."):
                student_state[f"{prefix}{new}.{key.removeprefix(f'{prefix}{old}.')}"] = tensor
    llm = build_plain(model.llm, _with_layers(model.llm.config, layers, count), student_state)
    student = MultimodalLm(cast(Any, model), llm, teacher.config.model)
    _copy_connector(student, model)
    student.eval()
    return replace(teacher, model=student, llm=llm, blocks=list(decoder_list(llm)), tied=is_tied(llm))


def _with_layers(config: Any, layers: list[int], count: int) -> Any:
    """The configuration of a model with only some layers. Settings that it lists for each layer are cut too."""
    config = copy.deepcopy(config)
    settings = config.get_text_config()
    for name, value in settings.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:
            setattr(settings, name, [value[layer] for layer in layers])
    settings.num_hidden_layers = len(layers)
    return config


def _copy_connector(student: MultimodalLm, teacher: MultimodalLm) -> None:
    """Copy connectors, gates and the placeholder; those of the teacher's nearest entry where it has more entries."""
    student_layers, teacher_layers = decoder_list(student.llm), decoder_list(teacher.llm)
    heights = (len(student_layers), len(teacher_layers))
    pairs = ((student.connector, teacher.connector), (student.hearing, teacher.hearing))
    for index, entry in enumerate(student.plan):
        nearest = _nearest(entry, teacher.plan, heights)
        for connector, original in pairs:
            if connector is not None:
                projector = cast(Connector, original).projectors[nearest]
                connector.projectors[index].load_state_dict(projector.state_dict())
        layer, teacher_layer = student_layers[entry.layer], teacher_layers[teacher.plan[nearest].layer]
        if isinstance(layer, FusedLayer) and layer.cross is not None:
            layer.cross.load_state_dict(cast(Any, teacher_layer).cross.state_dict())
    for connector, original in pairs:
        if connector is not None and connector.resampler is not None:
            connector.resampler.load_state_dict(cast(Any, original).resampler.state_dict())
    if student.placeholder is not None and teacher.placeholder is not None:
        student.placeholder.data.copy_(teacher.placeholder)


def _nearest(entry: Entry, plan: list[Entry], heights: tuple[int, int]) -> int:
    """The index in the teacher's plan of the entry with the most similar encoder depth, then height in the LLM.

    Args: heights: the number of layers of the student and of the teacher.
    """
    student_height, teacher_height = heights

    def distance(index: int) -> tuple[float, float]:
        other = plan[index]
        return abs(other.depth - entry.depth), abs(other.layer / teacher_height - entry.layer / student_height)

    return min(range(len(plan)), key=distance)


def distil(teacher: Exported, release: TrainingRelease, steps: int, mesh: Mesh) -> Exported:
    """Train a student with half the layers on a release's train split to predict what the teacher predicts.

    See `distillation_loss`. Batches, their order and learning rates are those of the stage; encoders stay frozen.

    Args: mesh: of one process.
    Raises UserError: the model has only one layer.
    Raises DataError: the release has no samples for this stage, or the loss is not a number.
    """
    student, config = halved(teacher), teacher.config
    settings = stage_settings(teacher.stage, config)
    settings = settings.model_copy(update={"steps": steps, "warmup_steps": min(settings.warmup_steps, steps // 10)})
    model, teacher_model = cast(MultimodalLm, student.model), cast(MultimodalLm, teacher.model)
    reader = make_reader(student, release, config, "train", settings.batch_size, Share())
    assert isinstance(reader, RowReader)
    model.to(mesh.device)
    teacher_model.to(mesh.device)
    for tower in (model.vision, model.audio):
        if tower is not None:
            tower.requires_grad_(False)
    optimizer = make_optimizer(model, settings, mesh.device)
    autocast, _ = precision("auto", mesh.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    stream = batches(reader, 0, config.data.workers, config.data.prefetch)
    for step in range(steps):
        batch = to_device(next(stream), mesh.device)
        train_mode(model)
        torch.manual_seed(derived_seed(config.seed, 6, step))
        tokens = global_tokens(batch, mesh)
        for chunk in batch.split(settings.micro_batch or len(batch.input_ids)):
            with autocast():
                loss = distillation_loss(teacher_model, model, with_stand_ins(chunk, model))
            (loss / tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.grad_clip or float("inf"))
        if not bool(norm.isfinite()):
            raise DataError(
                f"distillation, step {step + 1}: the loss is not a number. "
                f"Remedy: train stage `{teacher.stage}` with a smaller lr, and export that."
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    return student


def distillation_loss(teacher: MultimodalLm, student: MultimodalLm, batch: RowBatch) -> Tensor:
    """The loss of a student (Hinton et al. 2015), summed over the learned tokens of a batch.

    DATA_LOSS_SHARE of it is the cross-entropy of the data's tokens. The rest is KL(teacher || student) of the
    next-token distributions at TEMPERATURE, times its square.
    """
    learned = batch.labels[:, 1:] != IGNORED
    with torch.no_grad():
        teacher_ND = teacher.hidden(teacher.llm, teacher.embed(batch), batch)[:, :-1][learned]
    student_ND = student.hidden(student.llm, student.embed(batch), batch)[:, :-1][learned]
    teacher_head, student_head = teacher.llm.get_output_embeddings(), student.llm.get_output_embeddings()
    data_loss = chunked_cross_entropy(student_ND, batch.labels[:, 1:][learned], student_head, True)
    teacher_loss = chunked_kl(
        teacher_ND,
        student_ND,
        lambda hidden_ND: teacher_head(hidden_ND) / TEMPERATURE,
        lambda hidden_ND: student_head(hidden_ND) / TEMPERATURE,
    )
    return DATA_LOSS_SHARE * data_loss + (1 - DATA_LOSS_SHARE) * TEMPERATURE**2 * teacher_loss
