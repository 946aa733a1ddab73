"""Cross-modal masked prediction: hidden parts of a medium or caption are predicted from the other media's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.batch_types import PairBatch
from training.data.text_codec import IGNORED
from training.model.losses import chunked_cross_entropy

CELL_PIXELS = 8  # side of a predicted patch, after the picture is scaled down
SEGMENT_FRAMES, SEGMENT_SAMPLES = 16, 2560  # of hidden sound: 160 ms of the spectrogram, and of the 16 kHz wave
SOUND_POOL = 4  # frames and mel bands of a predicted segment that are averaged
LOSS_NAMES = {"picture": "masked", "text": "masked_text", "sound": "masked_sound"}
BLOCKS, HEADS = 2, 4
POSITION_SCALE = 0.2  # of the first position vectors; with 0.02 the decoder does not learn which place is which


class MaskedPrediction(nn.Module):
    """Predicts what is hidden of pictures, captions and sound, each from its visible rest and the others' tokens.

    Pictures lose cells of their pixels (MAE, He et al. 2022), sound segments of 160 ms, captions tokens (BERT, Devlin
    et al. 2019). The tower reads what is left; a decoder attends to it, and by cross-attention to the tokens of the
    sample's other media: patches, text tokens, segments, never their pooled vector. It works with any towers.

    Args:
        encoder: the dual encoder.
        kinds: what is predicted: `picture`, `text`, `sound`.
        ratio: share of a picture's cells, and of a sound's segments, that is hidden.
        text_ratio: share of a caption's tokens that is hidden. The first and the last one stay.
    """

    def __init__(self, encoder: Any, kinds: Sequence[str], ratio: float, text_ratio: float, dim: int = 128) -> None:
        super().__init__()
        self.kinds, self.ratio, self.text_ratio = tuple(kinds), ratio, text_ratio
        with torch.no_grad():
            sizes = encoder.vision.preprocess.size
            width, *grid = encoder.vision.maps(torch.zeros(1, 3, *sizes))[-1].shape[1:]
            example = encoder.tokenize(["", "a"])
            shapes = {"picture": (width, grid[0] * grid[1]), "text": encoder.text.tokens(example).shape[2:0:-1]}
            if encoder.audio is not None:
                shapes["sound"] = (encoder.audio.width, encoder.audio.segment_count)
        self.grid = (int(grid[0]), int(grid[1]))
        self.pad = int(example[0, -1])  # how an empty caption ends
        self.project = nn.ModuleDict({kind: nn.Linear(shape[0], dim) for kind, shape in shapes.items()})
        self.positions = nn.ParameterDict(
            {kind: nn.Parameter(torch.randn(shape[1], dim) * POSITION_SCALE) for kind, shape in shapes.items()}
        )
        self.nothing = nn.Parameter(torch.randn(1, dim) * 0.02)  # seen by a sample without other media
        self.hidden = nn.Parameter(torch.randn(dim) * 0.02)  # marks the hidden tokens of a caption
        block = nn.TransformerDecoderLayer(dim, HEADS, 4 * dim, 0.0, batch_first=True, norm_first=True)
        self.decoders = nn.ModuleDict({kind: nn.TransformerDecoder(block, BLOCKS, nn.LayerNorm(dim)) for kind in kinds})
        outputs = {"picture": 3 * CELL_PIXELS * CELL_PIXELS, "text": encoder.text.vocabulary}
        if encoder.audio is not None:
            outputs["sound"] = encoder.audio.mel_bins // SOUND_POOL * (SEGMENT_FRAMES // SOUND_POOL)
        self.heads = nn.ModuleDict({kind: nn.Linear(dim, outputs[kind]) for kind in kinds})

    def forward(
        self, encoder: Any, pixels_MCHW: Tensor, sound_NL: Tensor | None, batch: PairBatch
    ) -> dict[str, Tensor]:
        """Sums over what is hidden, by LOSS_NAMES, and their counts (`…_count`).

        Pictures and sound give the mean squared error of a cell's or segment's normalised values; captions give the
        cross-entropy of a token.

        Args: pixels_MCHW, sound_NL: normalised pictures and waves of the batch; what stands in for none counts nothing.
        """
        inputs = {"picture": pixels_MCHW, "text": batch.text} | ({} if sound_NL is None else {"sound": sound_NL})
        rows = torch.arange(len(batch.text), device=batch.text.device)
        owners = {"picture": batch.picture_of, "text": rows, "sound": batch.sound_of}
        context = {
            kind: self._by_sample(kind, self._tokens(encoder, kind, inputs[kind]), owners[kind], batch.text)
            for kind in self.project
            if any(kind != predicted for predicted in self.kinds)
        }
        sums: dict[str, Tensor] = {}
        for kind in self.kinds:
            seen = [context[other] for other in context if other != kind]
            memory_BKD = torch.cat([self.nothing.expand(len(rows), -1, -1), *(tokens for tokens, _ in seen)], 1)
            is_there = torch.cat([torch.ones_like(rows)[:, None].bool(), *(there for _, there in seen)], 1)
            owner = owners[kind]
            is_real = float(len(owner) > 0)
            owner = owner if len(owner) else torch.zeros(len(inputs[kind]), dtype=torch.long, device=rows.device)
            predict = {"picture": self._pictures, "text": self._texts, "sound": self._sounds}[kind]
            loss, count = predict(encoder, inputs[kind], (memory_BKD[owner], ~is_there[owner]))
            sums |= {LOSS_NAMES[kind]: loss * is_real, f"{LOSS_NAMES[kind]}_count": count * is_real}
        return sums

    def expected(self, batch: PairBatch) -> dict[str, Tensor]:
        """How much of a batch is hidden on average, by LOSS_NAMES."""
        cells = {"picture": self.grid[0] * self.grid[1] * len(batch.picture_of)}
        if "sound" in self.positions:
            cells["sound"] = len(self.positions["sound"]) * len(batch.sound_of)
        counts = {kind: torch.tensor(self.ratio * count, device=batch.weight.device) for kind, count in cells.items()}
        if "text" in self.kinds:
            counts["text"] = self._may_hide(batch.text).sum() * self.text_ratio
        return {LOSS_NAMES[kind]: counts[kind] for kind in self.kinds}

    def _tokens(self, encoder: Any, kind: str, values: Tensor) -> Tensor:
        """The tokens of a tower M,K,D, with their positions."""
        if kind == "picture":
            tokens = encoder.vision.maps(values)[-1].flatten(2).transpose(1, 2)
        else:
            tokens = encoder.text.tokens(values) if kind == "text" else encoder.audio.segments(values)
        return self.project[kind](tokens) + self.positions[kind]

    def _by_sample(self, kind: str, tokens_MKD: Tensor, owner_M: Tensor, text_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of each sample B,K,D, and which of them there are B,K. Frames of a clip are averaged by place."""
        if kind == "text":
            return tokens_MKD, is_content(text_BT, self.pad)
        mean_BKD, count_B = mean_by_sample(tokens_MKD, owner_M, len(text_BT))
        return mean_BKD, (count_B > 0)[:, None].expand(-1, mean_BKD.shape[1])

    def _decoded(self, kind: str, tokens_MKD: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        return self.decoders[kind](tokens_MKD, memory[0], memory_key_padding_mask=memory[1])

    def _pictures(self, encoder: Any, pixels_MCHW: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden_MN = torch.rand(len(pixels_MCHW), self.grid[0] * self.grid[1], device=pixels_MCHW.device) < self.ratio
        cover = hidden_MN.float().unflatten(1, self.grid)[:, None]
        cover = F.interpolate(cover, size=pixels_MCHW.shape[-2:], mode="nearest")
        tokens_MND = self._tokens(encoder, "picture", pixels_MCHW * (1 - cover))
        predicted_MNP = self.heads["picture"](self._decoded("picture", tokens_MND, memory))
        return _squared_error(predicted_MNP, self._cells(pixels_MCHW), hidden_MN)

    def _cells(self, pixels_MCHW: Tensor) -> Tensor:
        """Each cell's pixels M,N,P, scaled to CELL_PIXELS squared, with zero mean and unit variance."""
        rows, columns = self.grid
        small = F.interpolate(pixels_MCHW, size=(rows * CELL_PIXELS, columns * CELL_PIXELS), mode="area")
        return _normalised(F.unfold(small, CELL_PIXELS, stride=CELL_PIXELS).transpose(1, 2))

    def _texts(self, encoder: Any, text_BT: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden_BT = (torch.rand(text_BT.shape, device=text_BT.device) < self.text_ratio) & self._may_hide(text_BT)
        # Few tokenizers have a mask token, but each has a first token: it stands where one is hidden.
        tokens_BTD = self._tokens(encoder, "text", torch.where(hidden_BT, text_BT[:, :1], text_BT))
        tokens_BTD = tokens_BTD + hidden_BT[..., None] * self.hidden
        labels_BT = text_BT.masked_fill(~hidden_BT, IGNORED)
        decoded_BTD = self._decoded("text", tokens_BTD, memory)
        loss = chunked_cross_entropy(decoded_BTD.flatten(0, 1), labels_BT.flatten(), self.heads["text"], True)
        return loss, hidden_BT.sum().float()

    def _may_hide(self, text_BT: Tensor) -> Tensor:
        """bool B,T: the tokens between the first and the last of a caption."""
        content_BT = is_content(text_BT, self.pad)
        inner_BT = content_BT & F.pad(content_BT[:, 1:], (0, 1))
        return inner_BT & (torch.arange(text_BT.shape[1], device=text_BT.device) > 0)

    def _sounds(self, encoder: Any, sound_NL: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        segments = len(self.positions["sound"])
        hidden_NK = torch.rand(len(sound_NL), segments, device=sound_NL.device) < self.ratio
        cover_NL = hidden_NK.repeat_interleave(SEGMENT_SAMPLES, 1)[:, : sound_NL.shape[1]].float()
        cover_NL = F.pad(cover_NL, (0, sound_NL.shape[1] - cover_NL.shape[1]))
        tokens_NKD = self._tokens(encoder, "sound", sound_NL * (1 - cover_NL))
        predicted_NKP = self.heads["sound"](self._decoded("sound", tokens_NKD, memory))
        return _squared_error(predicted_NKP, self._segments(encoder.audio.log_mel(sound_NL)), hidden_NK)

    def _segments(self, mel_N1MF: Tensor) -> Tensor:
        """Each segment's log-mel values N,K,P, averaged over 4 frames and 4 bands, with zero mean and unit variance."""
        small_NmF = F.avg_pool2d(mel_N1MF, SOUND_POOL)[:, 0]
        return _normalised(small_NmF.unflatten(2, (len(self.positions["sound"]), -1)).transpose(1, 2).flatten(2))


def is_content(text_BT: Tensor, pad: int) -> Tensor:
    """bool B,T: the tokens of each caption, without the padding at its end. The end token counts, unless it pads."""
    return (text_BT != pad).flip(1).cummax(1).values.flip(1)


def mean_by_sample(tokens_MKD: Tensor, owner_M: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of each sample's tokens B,K,D, place by place, and of how many media B.

    All zero, with a gradient of zero, if the media stand in for none.
    """
    zeros_BKD = tokens_MKD.new_zeros(count, *tokens_MKD.shape[1:])
    counts_B = torch.zeros(count, device=tokens_MKD.device)
    if not len(owner_M):
        return zeros_BKD + tokens_MKD.sum() * 0, counts_B
    counts_B = counts_B.index_add(0, owner_M, torch.ones_like(owner_M, dtype=counts_B.dtype))
    return zeros_BKD.index_add(0, owner_M, tokens_MKD) / counts_B.clamp_min(1)[:, None, None], counts_B


def _normalised(values_MNP: Tensor) -> Tensor:
    return (values_MNP - values_MNP.mean(-1, keepdim=True)) / (values_MNP.var(-1, keepdim=True) + 1e-6).sqrt()


def _squared_error(predicted_MNP: Tensor, target_MNP: Tensor, hidden_MN: Tensor) -> tuple[Tensor, Tensor]:
    error_MN = (predicted_MNP.float() - target_MNP).square().mean(-1)
    return (error_MN * hidden_MN).sum(), hidden_MN.sum().float()
