"""What is hidden of one medium is predicted from the tokens of the others."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from training.data.batch_types import PairBatch
from training.model.masked_prediction import MaskedPrediction, is_content, mean_by_sample

ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # 24 orders of four symbols
SAMPLES = torch.arange(len(ORDERS))
START, END, FIRST_SYMBOL = 1, 2, 4  # token ids; 0 pads


def symbols() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A colour, a texture and a sound for each of four symbols."""
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randn(4, 3, 1, 1, generator=draw),
        torch.randn(4, 3, 8, 8, generator=draw),
        torch.randn(4, 4, 4, generator=draw),
    )


def toy(sound: bool = False) -> Any:
    """Towers without weights: cells of a picture, one-hot tokens, segments of sound."""
    *_, sounds = symbols()
    vision = SimpleNamespace(
        preprocess=SimpleNamespace(size=(16, 16)), maps=lambda pixels: [F.adaptive_avg_pool2d(pixels, (2, 2))]
    )
    text = SimpleNamespace(tokens=lambda ids: F.one_hot(ids, 8).float(), vocabulary=8)

    def segments(wave: torch.Tensor) -> torch.Tensor:  # a segment's first sample names its symbol; a hidden one is 0
        return F.one_hot(wave[:, ::2560].round().long(), 5).float()

    def log_mel(wave: torch.Tensor) -> torch.Tensor:
        patterns = sounds[wave[:, ::2560].round().long() - 1]  # N,4,4,4
        return patterns.transpose(1, 2).flatten(2).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]

    audio = SimpleNamespace(width=5, segment_count=4, mel_bins=16, segments=segments, log_mel=log_mel)
    return SimpleNamespace(
        vision=vision,
        text=text,
        audio=audio if sound else None,
        tokenize=lambda captions: torch.tensor(
            [[START, *[FIRST_SYMBOL] * len(c), END, *[0] * (6 - len(c))] for c in captions]
        ),
    )


def sample_batch(order_of_text: torch.Tensor, with_sound: bool = False) -> PairBatch:
    """A caption for each order of symbols; a picture (and sound) each."""
    ids = torch.cat([torch.full((24, 1), START), order_of_text + FIRST_SYMBOL, torch.tensor([[END, 0, 0]] * 24)], 1)
    owner = SAMPLES if with_sound else SAMPLES[:0]
    ones = torch.ones(24)
    return PairBatch(ids, ones, SAMPLES, SAMPLES > 99, None, SAMPLES, None, owner, [], read=24, bad=0, consumed=24)


def pictures(orders: torch.Tensor) -> torch.Tensor:
    """Four cells each, of the symbols' colours and textures."""
    colours, textures, _ = symbols()
    cells = (3 * colours + textures)[orders]  # 24,4,3,8,8
    rows = [torch.cat([cells[:, 2 * row], cells[:, 2 * row + 1]], 3) for row in range(2)]
    return torch.cat(rows, 2)


def waves(orders: torch.Tensor) -> torch.Tensor:
    return (orders + 1).float().repeat_interleave(2560, 1)


@pytest.mark.parametrize(
    "kind", ["text", pytest.param("picture", marks=pytest.mark.slow), pytest.param("sound", marks=pytest.mark.slow)]
)
def test_the_other_mediums_tokens_are_used_and_not_their_mean(kind: str) -> None:
    """All samples hold the same four symbols, so any mean is the same: only the order of the tokens tells."""
    torch.manual_seed(0)
    encoder = toy(sound=kind == "sound")
    masked = MaskedPrediction(encoder, [kind], 0.9, 0.9, dim=32)
    means = encoder.vision.maps(pictures(ORDERS))[-1].mean((2, 3))
    torch.testing.assert_close(means, means[:1].expand(24, -1))
    name = {"picture": "masked", "text": "masked_text", "sound": "masked_sound"}[kind]

    def loss(shift: int = 0) -> torch.Tensor:
        """With `shift`, what is predicted stays, and the other media are those of another sample."""
        others, own = ORDERS.roll(shift, 0), ORDERS
        of = {k: own if k == kind else others for k in ("picture", "text", "sound")}
        wave = waves(of["sound"]) if kind == "sound" else None
        sums = masked(encoder, pictures(of["picture"]), wave, sample_batch(of["text"], kind == "sound"))
        return sums[name] / sums[f"{name}_count"]

    optimizer = torch.optim.Adam(masked.parameters(), 3e-3)
    for _ in range(150):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        right, wrong = loss(), loss(7)
    assert right < 0.2 * wrong, (float(right), float(wrong))


def test_what_is_hidden_is_not_seen() -> None:
    """With everything hidden and no other medium, captions of one length are all predicted alike."""
    torch.manual_seed(0)
    masked = MaskedPrediction(toy(), ["text"], 0.5, 0.999999, dim=32)
    batch = sample_batch(ORDERS)
    none = batch.picture_of[:0]
    bare = PairBatch(batch.text, batch.weight, batch.group, batch.is_clip, None, none, None, none, [], 24, 0, 24)
    seen: list[torch.Tensor] = []
    masked.heads["text"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    sums = masked(toy(), torch.zeros(1, 3, 16, 16), None, bare)
    assert float(sums["masked_text_count"]) == 24 * 4
    hidden = seen[0].unflatten(0, (24, 8))[:, 1:5]
    torch.testing.assert_close(hidden, hidden[:1].expand(24, -1, -1))


def test_the_losses_are_sums_over_what_is_hidden() -> None:
    torch.manual_seed(0)
    masked = MaskedPrediction(toy(sound=True), ["picture", "text", "sound"], 0.5, 0.25, dim=32)
    batch = sample_batch(ORDERS, with_sound=True)
    expected = {name: float(count) for name, count in masked.expected(batch).items()}
    assert expected == {"masked": 48.0, "masked_text": 24.0, "masked_sound": 48.0}
    sums = masked(toy(sound=True), pictures(ORDERS), waves(ORDERS), batch)
    for name, count in expected.items():
        assert 0.5 * count < float(sums[f"{name}_count"]) < 1.5 * count
    for name in ("masked", "masked_sound"):
        assert 0.8 < float((sums[name] / sums[f"{name}_count"]).detach()) < 1.6, "unit variance before it has learned"
    sum(value.sum() for value in sums.values()).backward()
    assert all(p.grad is not None for p in masked.parameters())


def test_only_the_inside_of_a_caption_is_hidden() -> None:
    masked = MaskedPrediction(toy(), ["text"], 0.5, 0.5, dim=32)
    ids = torch.tensor([[1, 5, 6, 2, 0, 0], [1, 2, 0, 0, 0, 0], [1, 5, 0, 6, 2, 0], [0, 0, 0, 0, 0, 0]])
    assert is_content(ids, 0).long().sum(1).tolist() == [4, 2, 5, 0]
    assert [torch.nonzero(row)[:, 0].tolist() for row in masked._may_hide(ids)] == [[1, 2], [], [1, 2, 3], []]


def test_frames_of_a_clip_are_averaged_place_by_place() -> None:
    tokens = torch.arange(12.0).view(3, 2, 2)
    mean, counts = mean_by_sample(tokens, torch.tensor([1, 1, 2]), 4)
    assert counts.tolist() == [0, 2, 1, 0]
    torch.testing.assert_close(mean[1], (tokens[0] + tokens[1]) / 2)
    assert not mean[[0, 3]].any()


def test_a_cells_target_is_its_own_pixels() -> None:
    encoder = toy()
    encoder.vision.maps = lambda pixels: [F.adaptive_avg_pool2d(pixels, (2, 3))]
    masked = MaskedPrediction(encoder, ["picture"], 0.5, 0.5, dim=32)
    pixels = torch.zeros(1, 3, 32, 48)
    pixels[:, :, 16:, 32:] = torch.randn(3, 16, 16)
    targets = cast(torch.Tensor, masked._cells(pixels))
    assert targets.shape == (1, 6, 192)
    assert torch.nonzero(targets[0].abs().sum(1))[:, 0].tolist() == [5], "row by row, as a map is flattened"
    torch.testing.assert_close(targets[0, 5].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets[0, 5].var(), torch.tensor(1.0), atol=1e-3, rtol=0)
    smooth = F.avg_pool2d(pixels[:, :, 16:, 32:], 2).flatten()
    expected = (smooth - smooth.mean()) / smooth.std()
    torch.testing.assert_close(targets[0, 5], expected, atol=1e-3, rtol=1e-3)
