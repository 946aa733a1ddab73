"""Pipeline parallelism: the LLM's layers in runs over ranks, micro-batches in the 1F1B schedule."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mmdata.errors import UserError
from training.config import Generative
from training.data.examples import Batch
from training.data.tokens import IGNORED
from training.distributed.mesh import Mesh
from training.model.fusion import decoder_list
from training.model.lm import MultimodalLm
from training.model.losses import chunked_cross_entropy
from training.stages.generative import global_tokens, with_stand_in


class Elsewhere(nn.Module):
    """Stands in for a layer that another rank holds, so that names stay what they are on one process."""

    def forward(self, hidden_RLD: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_RLD


class Segment(nn.Module):
    """This rank's run of decoder layers: hidden states in, hidden states out."""

    def __init__(self, llm: Any) -> None:
        super().__init__()
        self.base = llm.base_model

    def forward(self, hidden_RLD: Tensor, position_ids: Tensor) -> Tensor:
        return self.base(inputs_embeds=hidden_RLD, position_ids=position_ids, use_cache=False).last_hidden_state


def cut_pipeline(model: MultimodalLm, mesh: Mesh) -> None:
    """Take out of a model what other ranks of its pipeline hold, in place.

    Raises:
        UserError: media enter deeper than the first layer, a sliding window is set, or there are too few layers.
    """
    if not model.in_sequence or [entry.layer for entry in model.plan] != [0]:
        raise UserError("parallel.pp > 1 needs architecture `single_tower` with fusion `early` or `attention`")
    if model.window is not None:
        raise UserError("parallel.pp > 1 cannot be combined with model.llm.sliding_window")
    llm = model.llm
    layers = decoder_list(llm)
    rank, size = mesh.rank("pp"), mesh.size("pp")
    if len(layers) < size:
        raise UserError(f"parallel.pp {size} is over the LLM's {len(layers)} layers")
    bounds = [round(at * len(layers) / size) for at in range(size + 1)]
    first, last = rank == 0, rank == size - 1
    for index in range(len(layers)):
        if not bounds[rank] <= index < bounds[rank + 1]:
            layers[index] = Elsewhere()
    tied = is_tied(llm)
    if not last:
        llm.base_model.norm = Elsewhere()
    if not last and not (first and tied):
        llm.set_output_embeddings(Elsewhere())
    if not first:
        if not (last and tied):
            llm.set_input_embeddings(Elsewhere())
        if last and tied:  # the first rank has the same matrix, and its gradient
            llm.get_input_embeddings().weight.counted_elsewhere = True
        model.vision, model.audio = Elsewhere(), None  # type: ignore[assignment]
        model.connector, model.hearing = Elsewhere(), None  # type: ignore[assignment]


def is_tied(llm: Any) -> bool:
    """Whether the LLM reads and writes words with one matrix."""
    head, words = llm.get_output_embeddings(), llm.get_input_embeddings()
    return getattr(head, "weight", None) is getattr(words, "weight", 0)


class PipelineStep:
    """Forward and backward of one batch through the pipeline; the same losses and gradients as on one process.

    Args:
        model: cut by `cut_pipeline`.
        tied: whether the whole model's word matrix is one, held by the first and the last rank.
    """

    def __init__(self, model: MultimodalLm, stage: Generative, mesh: Mesh, autocast: Any, tied: bool) -> None:
        if stage.kl_weight > 0:
            raise UserError("parallel.pp > 1 cannot be combined with kl_weight")
        self._model, self._stage, self._mesh, self._autocast, self._tied = model, stage, mesh, autocast, tied
        self._first, self._last = mesh.rank("pp") == 0, mesh.rank("pp") == mesh.size("pp") - 1
        self.segment = Segment(model.llm)
        self._schedules: dict[int, Any] = {}
        self._tokens = torch.ones(())

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leaves gradients in the parameters; gives this rank's share of the loss, the same on all of a pipeline."""
        self._tokens = global_tokens(batch, self._mesh)
        loss = self._through(batch, backward=True)
        self._join_gradients()
        return {"text": loss}

    @torch.no_grad()
    def validate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed loss over data-parallel ranks, and tokens."""
        self._tokens = global_tokens(batch, self._mesh)
        loss = self._through(batch, backward=False)
        return self._mesh.sum(loss.double()) * self._tokens, self._tokens

    def _through(self, batch: Batch, backward: bool) -> Tensor:
        rows = len(batch["input_ids"])
        micro = self._stage.micro_batch or 1
        count = max(self._mesh.size("pp"), -(-rows // micro))
        short = count * micro - rows
        positions = _filled(batch["position_ids"], short, None)
        labels = _filled(batch["labels"], short, IGNORED)
        losses: list[Tensor] = []
        options: dict[str, Any] = {"position_ids": positions}
        if self._last:
            options |= {"target": labels, "losses": losses}
        schedule = self._schedule(count)
        run = schedule.step if backward else schedule.eval
        with self._autocast():
            if self._first:
                embeds = self._model.embed(with_stand_in(batch, self._model))
                whole = F.pad(embeds, (0, 0, 0, 0, 0, short)).detach().requires_grad_(backward)
                run(whole, **options)
                if backward and whole.grad is not None and embeds.requires_grad:
                    embeds.backward(whole.grad[:rows])
            else:
                run(**options)
        loss = torch.stack(losses).sum().detach() if losses else torch.zeros((), device=self._mesh.device)
        dist.all_reduce(loss, group=self._mesh.groups["pp"])
        return loss / self._mesh.size("dp") if backward else loss

    def _schedule(self, count: int) -> Any:
        """A schedule of so many micro-batches; each has a stage of its own, since a stage keeps to its first shapes."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        if count not in self._schedules:
            where = self._mesh.rank("pp"), self._mesh.size("pp"), self._mesh.device
            pipe = PipelineStage(self.segment, *where, group=self._mesh.groups["pp"])
            # Every rank says that there is a loss: one without believes that nothing flows back.
            self._schedules[count] = Schedule1F1B(pipe, count, loss_fn=self._loss, scale_grads=False)
        return self._schedules[count]

    def _loss(self, hidden_RLD: Tensor, labels_RL: Tensor) -> Tensor:
        learned = labels_RL[:, 1:] != IGNORED
        head = self._model.llm.get_output_embeddings()
        total = chunked_cross_entropy(
            hidden_RLD[:, :-1][learned], labels_RL[:, 1:][learned], head, self._stage.chunked_loss
        )
        scale = self._mesh.size("dp") if torch.is_grad_enabled() else 1
        return total / self._tokens * scale

    def _join_gradients(self) -> None:
        """One word matrix on two ranks has one gradient; and data-parallel ranks have the mean of theirs."""
        if self._tied:
            weight = self._model.llm.get_input_embeddings().weight if self._first or self._last else None
            shape = torch.tensor(weight.shape if weight is not None else (0, 0), device=self._mesh.device)
            dist.all_reduce(shape, dist.ReduceOp.MAX, group=self._mesh.groups["pp"])
            grad = torch.zeros(*shape.tolist(), device=self._mesh.device)
            if weight is not None and weight.grad is not None:
                grad = weight.grad
            dist.all_reduce(grad, group=self._mesh.groups["pp"])
            if weight is not None and weight.requires_grad:
                weight.grad = grad
        if self._mesh.size("dp") > 1:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad, group=self._mesh.dp_group)
                    parameter.grad /= self._mesh.size("dp")


def _filled(rows_RL: Tensor, short: int, value: int | None) -> Tensor:
    """Rows, and `short` more: of a value, or counting up."""
    if not short:
        return rows_RL
    length = rows_RL.shape[1]
    more = torch.arange(length, device=rows_RL.device) if value is None else torch.full((length,), value)
    return torch.cat([rows_RL, more.to(rows_RL).expand(short, length)])
