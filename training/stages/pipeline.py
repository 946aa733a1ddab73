"""Pipeline parallelism: each rank holds a run of the LLM's layers, and micro-batches follow the 1F1B schedule."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from training.config import Generative
from training.data.batch_types import Batch, RowBatch, to_device
from training.data.text_codec import IGNORED
from training.distributed.gradients import Autocast, ScaleLoss, average_gradients
from training.distributed.process_mesh import Mesh
from training.model.fusion import decoder_list
from training.model.llm import is_tied
from training.model.losses import chunked_cross_entropy
from training.model.multimodal_lm import MultimodalLm
from training.model.packed_rows import learned_positions
from training.stages.generative import global_tokens, with_stand_ins


class RemoteLayer(nn.Module):
    """Takes the place of a layer that another rank holds, so that all parameters keep their names."""

    def forward(self, hidden_RLD: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_RLD


class PipelineSegment(nn.Module):
    """This rank's run of decoder layers: hidden states in, hidden states of the same dtype out."""

    def __init__(self, model: MultimodalLm) -> None:
        super().__init__()
        self.llm, self.attention = model.llm, model.attention

    def forward(self, hidden_RLD: Tensor, position_ids: Tensor, documents: int) -> Tensor:
        return self.attention.hidden(self.llm, hidden_RLD, position_ids, documents).to(hidden_RLD.dtype)


def cut_pipeline(model: MultimodalLm, mesh: Mesh) -> None:
    """Remove from a model, in place, the parts that other ranks of its pipeline hold.

    Raises UserError: media enter deeper than the first layer, or there are too few layers.
    """
    if not model.in_sequence or [entry.layer for entry in model.plan] != [0]:
        raise UserError(
            "parallel.pp > 1 needs media at the first layer. "
            "Remedy: architecture `single_tower` with fusion `early` or `attention`, or parallel.pp = 1."
        )
    llm = model.llm
    layers = decoder_list(llm)
    rank, size = mesh.rank("pp"), mesh.size("pp")
    if len(layers) < size:
        raise UserError(f"parallel.pp {size} is over the LLM's {len(layers)} layers. Remedy: a smaller parallel.pp.")
    bounds = [round(at * len(layers) / size) for at in range(size + 1)]
    first, last = rank == 0, rank == size - 1
    for index in range(len(layers)):
        if not bounds[rank] <= index < bounds[rank + 1]:
            layers[index] = RemoteLayer()
    tied = is_tied(llm)
    if not last:
        llm.base_model.norm = RemoteLayer()
    if not last and not (first and tied):
        llm.set_output_embeddings(RemoteLayer())
    if not first:
        if not (last and tied):
            llm.set_input_embeddings(RemoteLayer())
        if last and tied:  # the first rank has the same matrix, and counts its gradient in the norm
            llm.get_input_embeddings().weight.counted_elsewhere = True
        model.vision, model.audio = RemoteLayer(), None  # type: ignore[assignment]
        model.connector, model.hearing = RemoteLayer(), None  # type: ignore[assignment]


class PipelineStep:
    """Forward and backward pass of one batch through the pipeline, with the losses and gradients of one process.

    Args:
        model: cut by `cut_pipeline`.
        tied: whether input and output embeddings of the whole model are one matrix. The first and the last rank then
            hold a copy each.
    """

    def __init__(
        self,
        model: MultimodalLm,
        stage: Generative,
        mesh: Mesh,
        autocast: Autocast,
        tied: bool,
        scaled: ScaleLoss = lambda loss: loss,
    ) -> None:
        if stage.kl_weight > 0:
            raise UserError("parallel.pp > 1 cannot be combined with kl_weight. Remedy: kl_weight = 0.")
        self._model, self._stage, self._mesh, self._autocast, self._tied = model, stage, mesh, autocast, tied
        self._scaled = scaled
        self._first, self._last = mesh.rank("pp") == 0, mesh.rank("pp") == mesh.size("pp") - 1
        self.segment = PipelineSegment(model)
        self._schedules: dict[int, Any] = {}
        self._tokens, self._most_learned = 1.0, 1  # of the batch on all ranks, and of a micro-batch here
        self._tied_shape: tuple[int, ...] | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leave gradients in the parameters, and return the share of the loss of this rank's pipeline."""
        assert isinstance(batch, RowBatch)
        self._tokens = global_tokens(batch, self._mesh)
        loss = self._run(batch, backward=True)
        self._join_gradients()
        return {"text": loss}

    @torch.no_grad()
    def validate(self, batch: RowBatch) -> tuple[Tensor, float]:
        """The loss summed over the batch on all ranks, and the number of tokens."""
        self._tokens = global_tokens(batch, self._mesh)
        loss = self._run(batch, backward=False)
        return self._mesh.sum(loss.double()) * self._tokens, self._tokens

    def _run(self, batch: RowBatch, backward: bool) -> Tensor:
        """The loss as a mean over learned tokens, the same on all ranks of a pipeline."""
        rows = len(batch.input_ids)
        micro = self._stage.micro_batch or 1
        count = max(self._mesh.size("pp"), -(-rows // micro))
        missing = count * micro - rows  # rows of padding, so that each micro-batch has the same number of rows
        self._most_learned = max(run.most_learned for run in batch.split(micro))
        batch = to_device(batch, self._mesh.device)
        positions = _with_rows(batch.position_ids, missing, None)
        labels = _with_rows(batch.labels, missing, IGNORED)
        losses: list[Tensor] = []
        options: dict[str, Any] = {"position_ids": positions, "documents": batch.most_documents + missing}
        if self._last:
            options |= {"target": labels, "losses": losses}
        schedule = self._schedule(count)
        run = schedule.step if backward else schedule.eval
        with self._autocast():
            if self._first:
                embeds = self._model.embed(with_stand_ins(batch, self._model))
                # Encoders and connector run backward once, after all micro-batches, from the gradient of this leaf.
                leaf = F.pad(embeds, (0, 0, 0, 0, 0, missing)).detach().requires_grad_(backward)
                run(leaf, **options)
                if backward and leaf.grad is not None and embeds.requires_grad:
                    embeds.backward(leaf.grad[:rows])
            else:
                run(**options)
        loss = torch.stack(losses).sum().detach() if losses else torch.zeros((), device=self._mesh.device)
        loss = loss / self._scaled(torch.ones_like(loss))
        dist.all_reduce(loss, group=self._mesh.groups["pp"])
        return loss / self._mesh.size("dp") if backward else loss

    def _schedule(self, count: int) -> Any:
        """A schedule of `count` micro-batches. Each has its own stage, because a stage keeps its first shapes."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        if count not in self._schedules:
            rank, size, device = self._mesh.rank("pp"), self._mesh.size("pp"), self._mesh.device
            stage = PipelineStage(self.segment, rank, size, device, group=self._mesh.groups["pp"])
            # All ranks pass a loss function, because a schedule without one runs no backward pass.
            self._schedules[count] = Schedule1F1B(stage, count, loss_fn=self._loss, scale_grads=False)
        return self._schedules[count]

    def _loss(self, hidden_RLD: Tensor, labels_RL: Tensor) -> Tensor:
        head = self._model.llm.get_output_embeddings()
        hidden_ND, labels_N = learned_positions(hidden_RLD, labels_RL, self._most_learned)
        # the schedule's first call, which looks for shapes, passes memory that nothing was written to
        labels_N = labels_N.where((labels_N >= 0) & (labels_N < head.weight.shape[0]), IGNORED)
        total = chunked_cross_entropy(hidden_ND, labels_N, head, self._stage.chunked_loss)
        scale = self._mesh.size("dp") if torch.is_grad_enabled() else 1
        return self._scaled(total / self._tokens * scale)

    def _join_gradients(self) -> None:
        """Sum the gradients of both copies of tied embeddings, and average all gradients over data-parallel ranks."""
        if self._tied:
            weight = self._model.llm.get_input_embeddings().weight if self._first or self._last else None
            if self._tied_shape is None:
                shape = torch.tensor(weight.shape if weight is not None else (0, 0), device=self._mesh.device)
                dist.all_reduce(shape, dist.ReduceOp.MAX, group=self._mesh.groups["pp"])
                self._tied_shape = tuple(shape.tolist())
            grad = weight.grad if weight is not None else None
            if grad is None:
                grad = torch.zeros(self._tied_shape, device=self._mesh.device)
            dist.all_reduce(grad, group=self._mesh.groups["pp"])
            if weight is not None and weight.requires_grad:
                weight.grad = grad
        average_gradients(self._model.parameters(), self._mesh)


def _with_rows(rows_RL: Tensor, count: int, value: int | None) -> Tensor:
    """The rows and `count` more, filled with a value, or with 0, 1, 2, … if it is None."""
    if not count:
        return rows_RL
    length = rows_RL.shape[1]
    row = torch.arange(length, device=rows_RL.device) if value is None else torch.full((length,), value)
    return torch.cat([rows_RL, row.to(rows_RL).expand(count, length)])
