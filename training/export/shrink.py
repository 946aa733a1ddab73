"""Smaller language models out of a trained one: int8 weights, fewer MLP neurons, half the layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdata.errors import DataError, UserError
from training.data.batch_readers import RowReader, Share, batches
from training.data.batch_types import RowBatch, to_device
from training.data.order import derived_seed
from training.data.sample_index import TrainingRelease
from training.data.text_codec import IGNORED
from training.distributed.process_mesh import Mesh
from training.export.exported import Exported, layers_name, plain_state, quiet, rebuilt
from training.model.fusion import Entry, FusedLayer, decoder_list
from training.model.losses import chunked_cross_entropy, chunked_kl
from training.model.multimodal_lm import Connector, MultimodalLm
from training.stages.generative import global_tokens, with_stand_ins
from training.stages.pipeline import is_tied
from training.stages.stage_model import stage_settings, train_mode
from training.stages.stage_reader import make_reader
from training.trainer import learning_rate, make_optimizer, precision

MULTIPLE = 8  # widths that matrix units take
TEMPERATURE, HARD_SHARE = 2.0, 0.5  # of distillation (Hinton et al. 2015)
MLPS = (("gate_proj", "up_proj", "down_proj"), ("up_proj", "down_proj"), ("fc1", "fc2"))
"""Names of an MLP's linear layers: those that write its neurons, then the one that reads them."""


def quantise(folder: Path, output: Path) -> None:
    """Write a folder's language model with int8 weights: a scale a row, activations in floats (torchao).

    Word embeddings, the output head, the encoders and the connector stay as they are.

    Raises:
        UserError: torchao is not installed.
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
    """Write a folder's language model without the weakest neurons of its MLPs: smaller matrices, no zeros.

    A neuron's strength is the product of the 2-norms of the weights that write and read it, so that rescaling one
    against the other changes nothing. Each layer loses the same number, since one `intermediate_size` holds for all.

    Args:
        share: of each MLP's neurons that go; what stays is rounded up to a multiple of 8.

    Returns:
        The new `intermediate_size`.

    Raises:
        UserError: the MLPs are of a kind that neurons cannot be taken out of, or too narrow.
    """
    from transformers import AutoModelForCausalLM

    with quiet():
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    config = copy.deepcopy(llm.config)
    settings = config.get_text_config()
    width = int(getattr(settings, "intermediate_size", 0) or 0)
    kept = min(width, MULTIPLE * -(-round(width * (1 - share)) // MULTIPLE))
    if width and kept == width:
        raise UserError(f"prune {share:g} takes nothing away from MLPs of {width} neurons. Remedy: a larger share.")
    state = llm.state_dict()
    for at, layer in enumerate(decoder_list(llm)):
        name, (*writers, reader) = _mlp(layer, width, type(llm).__name__)
        name = f"{layers_name(llm)}.{at}.{name}"
        state |= _without_weakest(state, [f"{name}{one}" for one in writers], f"{name}{reader}", kept)
    settings.intermediate_size = kept
    with quiet():
        rebuilt(llm, config, state).save_pretrained(output)
    return kept


def _mlp(layer: nn.Module, width: int, model: str) -> tuple[str, tuple[str, ...]]:
    """Where a block's MLP stands in it (with the dot), and its linear layers' names."""
    for name, module in layer.named_modules():
        for names in MLPS:
            found = [getattr(module, one, None) for one in names]
            if not all(isinstance(one, nn.Linear) for one in found):
                continue
            *writers, reader = cast(list[nn.Linear], found)
            if reader.in_features == width and all(one.out_features == width for one in writers):
                return f"{name}." if name else "", names
    raise UserError(
        f"prune: {model} has MLPs of another kind than linear layers {' or '.join('/'.join(one) for one in MLPS)} of "
        "`intermediate_size` neurons. Remedy: int8 or distillation."
    )


def _without_weakest(state: Mapping[str, Tensor], writers: list[str], reader: str, kept: int) -> dict[str, Tensor]:
    strength = state[f"{reader}.weight"].norm(dim=0)
    for name in writers:
        strength = strength * state[f"{name}.weight"].norm(dim=1)
    chosen = strength.topk(kept).indices.sort().values
    found = {f"{reader}.weight": state[f"{reader}.weight"][:, chosen]}
    for name in writers:
        found |= {
            f"{name}.{one}": state[f"{name}.{one}"][chosen] for one in ("weight", "bias") if f"{name}.{one}" in state
        }
    return found


def halved(teacher: Exported) -> Exported:
    """A student of every second layer (DistilBERT, Sanh et al. 2019); media enter it where they entered the teacher.

    Encoders are the teacher's own; everything else is a copy.

    Raises:
        UserError: the language model has but one layer.
    """
    model = cast(MultimodalLm, teacher.model)
    count = len(decoder_list(model.llm))
    if count < 2:
        raise UserError("distillation halves the layers, and the language model has but one")
    layers = list(range(0, count, 2))
    name = f"{layers_name(model.llm)}."
    state, _ = plain_state(model.llm)
    thinner = {key: tensor for key, tensor in state.items() if not key.startswith(name)}
    for new, old in enumerate(layers):
        prefix = f"{name}{old}."
        thinner |= {f"{name}{new}.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}
    llm = rebuilt(model.llm, _with_layers(model.llm.config, layers, count), thinner)
    student = MultimodalLm(cast(Any, model), llm, teacher.config.model)
    _take_connector(student, model)
    student.eval()
    return replace(teacher, model=student, llm=llm, blocks=list(decoder_list(llm)), tied=is_tied(llm))


def _with_layers(config: Any, layers: list[int], count: int) -> Any:
    """The configuration of a model of some layers only; what it lists layer by layer is cut alike."""
    config = copy.deepcopy(config)
    settings = config.get_text_config()
    for name, value in settings.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:
            setattr(settings, name, [value[at] for at in layers])
    settings.num_hidden_layers = len(layers)
    return config


def _take_connector(student: MultimodalLm, teacher: MultimodalLm) -> None:
    ours, theirs = decoder_list(student.llm), decoder_list(teacher.llm)
    heights = [len(ours), len(theirs)]
    for at, entry in enumerate(student.plan):
        of = _nearest(entry, teacher.plan, heights)
        for connector, known in ((student.connector, teacher.connector), (student.hearing, teacher.hearing)):
            if connector is not None:
                connector.projectors[at].load_state_dict(cast(Connector, known).projectors[of].state_dict())
        layer, before = ours[entry.layer], theirs[teacher.plan[of].layer]
        if isinstance(layer, FusedLayer) and layer.cross is not None:
            layer.cross.load_state_dict(cast(Any, before).cross.state_dict())
    for connector, known in ((student.connector, teacher.connector), (student.hearing, teacher.hearing)):
        if connector is not None and connector.resampler is not None:
            connector.resampler.load_state_dict(cast(Any, known).resampler.state_dict())
    if student.placeholder is not None and teacher.placeholder is not None:
        student.placeholder.data.copy_(teacher.placeholder)


def _nearest(entry: Entry, plan: list[Entry], heights: list[int]) -> int:
    """The teacher's entry of the same depth of the encoder, and of about the same height in the LLM."""
    ours, theirs = heights

    def distance(at: int) -> tuple[float, float]:
        return abs(plan[at].depth - entry.depth), abs(plan[at].layer / theirs - entry.layer / ours)

    return min(range(len(plan)), key=distance)


def distil(teacher: Exported, release: TrainingRelease, steps: int, mesh: Mesh) -> Exported:
    """Train a halved student on a release's train split to say what the teacher says.

    The loss is HARD_SHARE of the stage's own, on the data's words, and for the rest KL(teacher || student) of the
    next-token distributions at TEMPERATURE, times its square (Hinton et al. 2015). Batches, order and rates are the
    stage's own; the encoders stay frozen.

    Args:
        mesh: one process.

    Raises:
        UserError: the model has but one layer.
        DataError: the release has nothing for this stage, or the loss is not a number.
    """
    student, config = halved(teacher), teacher.config
    settings = stage_settings(teacher.stage, config)
    settings = settings.model_copy(update={"steps": steps, "warmup_steps": min(settings.warmup_steps, steps // 10)})
    model, known = cast(MultimodalLm, student.model), cast(MultimodalLm, teacher.model)
    reader = make_reader(student, release, config, "train", settings.batch_size, Share())
    assert isinstance(reader, RowReader)
    model.to(mesh.device)  # the towers are the teacher's own, so that both move
    known.to(mesh.device)
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
                loss = distillation_loss(known, model, with_stand_ins(chunk, model))
            (loss / tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.grad_clip or float("inf"))
        if not bool(norm.isfinite()):
            raise DataError(
                f"distillation, step {step + 1}: the loss is not a number. Remedy: train with a smaller lr."
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    return student


def distillation_loss(teacher: MultimodalLm, student: MultimodalLm, batch: RowBatch) -> Tensor:
    """The loss of `distil`, summed over the learned tokens of some rows."""
    learned = batch.labels[:, 1:] != IGNORED
    with torch.no_grad():
        known_ND = teacher.hidden(teacher.llm, teacher.embed(batch), batch)[:, :-1][learned]
    hidden_ND = student.hidden(student.llm, student.embed(batch), batch)[:, :-1][learned]
    known_head, head = teacher.llm.get_output_embeddings(), student.llm.get_output_embeddings()
    hard = chunked_cross_entropy(hidden_ND, batch.labels[:, 1:][learned], head, True)
    soft = chunked_kl(known_ND, hidden_ND, lambda h: known_head(h) / TEMPERATURE, lambda h: head(h) / TEMPERATURE)
    return HARD_SHARE * hard + (1 - HARD_SHARE) * TEMPERATURE**2 * soft
