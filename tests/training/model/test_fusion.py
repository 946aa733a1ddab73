"""Fusion: every way of letting media into the text trains, and no sample sees another's."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from mmdata.errors import UserError
from tests.support.tiny_run import LLM, settings
from training.model.fusion import (
    Attention,
    Entry,
    FusedLayer,
    GatedCrossAttention,
    MediaContext,
    Projector,
    Resampler,
    decoder_list,
    fusion_plan,
)
from training.stages.stage_model import build_model


def test_the_plan_names_layers_that_there_are() -> None:
    for architecture, fusion in itertools.product(
        ("single_tower", "cross_attention"), ("early", "late", "hierarchical", "attention")
    ):
        for layers in range(1, 41):
            plan = fusion_plan(architecture, fusion, layers)
            named = [entry.layer for entry in plan]
            assert named == sorted(set(named))
            assert 0 <= named[0] <= named[-1] < layers
            assert all(0 < entry.depth <= 1 for entry in plan)
    assert fusion_plan("single_tower", "early", 24) == [Entry(0, 1.0)]
    assert fusion_plan("single_tower", "late", 24) == [Entry(18, 1.0)]
    assert fusion_plan("cross_attention", "hierarchical", 24) == [Entry(0, 1.0), Entry(6, 1 / 3), Entry(12, 2 / 3)]
    assert [entry.layer for entry in fusion_plan("cross_attention", "attention", 10)] == [0, 4, 8]


def test_the_resampler_gives_so_many_tokens_whatever_comes_in() -> None:
    torch.manual_seed(0)
    resampler = Resampler(16, 5, 4)
    tokens = torch.randn(2, 9, 16)
    condensed = resampler(tokens)
    assert condensed.shape == resampler(tokens[:, :3]).shape == (2, 5, 16)
    torch.testing.assert_close(resampler(tokens[:, torch.randperm(9)]), condensed)
    torch.testing.assert_close(resampler(tokens[:1])[0], condensed[0])
    assert Projector(7, 12, 16)(torch.randn(2, 9, 7)).shape == (2, 9, 16)


def test_projectors_are_what_their_names_say() -> None:
    gelu, tokens = torch.nn.functional.gelu, torch.randn(2, 9, 7)
    norm_mlp, mlp, linear = (Projector(7, 12, 16, kind) for kind in ("norm_mlp", "mlp", "linear"))
    names = [{name.partition(".")[0] for name in projector.state_dict()} for projector in (norm_mlp, mlp, linear)]
    assert names == [{"norm", "up", "down"}, {"up", "down"}, {"down"}]
    assert norm_mlp.norm is not None and norm_mlp.up is not None and mlp.up is not None
    torch.testing.assert_close(norm_mlp(tokens), norm_mlp.down(gelu(norm_mlp.up(norm_mlp.norm(tokens)))))
    torch.testing.assert_close(mlp(tokens), mlp.down(gelu(mlp.up(tokens))))
    torch.testing.assert_close(linear(tokens), linear.down(tokens))


def test_a_query_that_may_look_nowhere_gets_nothing() -> None:
    torch.manual_seed(0)
    cross = GatedCrossAttention(16, 4)
    cross.gate.data.fill_(1.0)
    cross.gate_mlp.data.fill_(1.0)
    text, media = torch.randn(1, 3, 16), torch.randn(1, 4, 16)
    mask = torch.tensor([[[True, True, False, False], [False] * 4, [False, False, True, True]]])
    attended = cross(text, media, mask)
    assert attended.isfinite().all()
    assert torch.equal(attended[0, 1], text[0, 1])
    media[0, 2:] += 1.0
    other = cross(text, media, mask)
    assert torch.equal(attended[0, :2], other[0, :2])
    assert not torch.allclose(attended[0, 2], other[0, 2])
    attention = Attention(16, 4)
    whole = attention(text, media)
    torch.testing.assert_close(attention(text[:, :1], media), whole[:, :1])


def test_a_fused_layer_is_its_layer_to_who_asks() -> None:
    inner = torch.nn.Linear(4, 4)
    inner.attention_type = "full_attention"  # type: ignore[assignment]
    context = MediaContext()
    fused = FusedLayer(inner, 2, context, None)
    assert fused.attention_type == "full_attention"
    with pytest.raises(AttributeError):
        _ = fused.nothing
    hidden_states = torch.randn(1, 3, 4)
    assert torch.equal(fused(hidden_states), inner(hidden_states))
    context.added[2] = torch.ones(1, 3, 4)
    assert torch.equal(fused(hidden_states), inner(hidden_states + 1))
    context.clear()
    assert torch.equal(fused(hidden_states), inner(hidden_states))
    assert torch.equal(copy.deepcopy(fused)(hidden_states), inner(hidden_states))


def test_the_decoder_is_the_longest_list_of_layers() -> None:
    llm = build_model("joint", settings()).llm
    assert len(decoder_list(llm)) == LLM["num_hidden_layers"]
    with pytest.raises(UserError, match="Linear keeps its layers in no list"):
        decoder_list(torch.nn.Linear(2, 2))
