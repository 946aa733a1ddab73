"""The scorer: an open_clip dual encoder that embeds uint8 pictures and captions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.config import Score
from mmdata.config.scorers import is_local_checkpoint, resolved
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.score.preprocess import Preprocess
from mmdata.score.pretrained import Loaded, check_names, load, weights_digest
from mmdata.score.text_tower import ROUND_TO, trimmed

if TYPE_CHECKING:
    import torch

TOKENIZE_AT_ONCE = 4096
# Of a forward pass on a CPU: what fits its caches is faster than a GPU's batch, in a fraction of the memory.
IMAGES_PER_THREAD, TEXTS_PER_THREAD = 8, 32
SAME_COSINE = 0.9999  # a cut text tower must agree with the whole one to this


class ClipScorer:
    """Embeds pictures and captions into one space; cosines there are scores.

    Args:
        name: `model/tag`, as tables and manifests show it.
        fingerprint: of name, preprocessing, weights and number format; scores of different ones are not comparable.
        dim: length of an embedding.
        image_size: height in pixels that the image tower takes; `preprocess.size` holds height and width.
    """

    def __init__(
        self,
        loaded: Loaded,
        device: str = "cpu",
        batch_size: int = 256,
        precision: str = "auto",
        compiled: bool = False,
    ) -> None:
        import torch

        self.name = loaded.name
        self.preprocess: Preprocess = loaded.preprocess
        self.image_size = loaded.preprocess.size[0]
        self.batch_size = batch_size
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._images_at_once = min(batch_size, IMAGES_PER_THREAD * torch.get_num_threads()) if on_cpu else batch_size
        self._texts_at_once = min(batch_size, TEXTS_PER_THREAD * torch.get_num_threads()) if on_cpu else batch_size
        self._dtype = _autocast_dtype(precision, self.device.type)
        weights = weights_digest(loaded.model)
        self.fingerprint = fingerprint(loaded.name, loaded.preprocess.as_dict(), weights, str(self._dtype))
        self._model = loaded.model.to(self.device)
        self._tokenize = loaded.tokenizer
        self._encode_image = self._model.encode_image
        self._encode_text, self._width = trimmed(self._model)
        self._scale, self._shift = self._normaliser()
        self._compiled = False
        self.dim = int(self.embed_images(np.zeros((1, *self.preprocess.size, 3), np.uint8)).shape[1])
        self._distrust_cut()
        if compiled:
            self._compiled = True
            self._encode_image, self._encode_text = torch.compile(self._encode_image), torch.compile(self._encode_text)

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embed pictures.

        Args:
            pixels: uint8 N,H,W,3 RGB, already of the model's size (see `mmdata.score.preprocess.fit`).

        Returns:
            float32 N,D, of unit length; a row is NaN where the model gives NaN.
        """
        import torch

        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.preprocess.size, 3):
            raise ValueError(f"expected uint8 N,{self.preprocess.size},3, got {pixels.dtype} {pixels.shape}")
        size = self._images_at_once
        batches = (torch.from_numpy(pixels[at : at + size]) for at in range(0, len(pixels), size))
        with torch.inference_mode():
            found = [self._forward(self._encode_image, self._normalised(batch), size) for batch in batches]
        return np.concatenate(found) if found else np.empty((0, self.dim), np.float32)

    def embed_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions, each cut to the model's context by its own tokenizer.

        Captions are sorted by length, so that a batch of short ones runs on few positions.

        Returns:
            float32 N,D, of unit length, in the order given.
        """
        import torch

        if not captions:
            return np.empty((0, self.dim), np.float32)
        spans = range(0, len(captions), TOKENIZE_AT_ONCE)
        tokens = torch.cat([self._tokenize(list(captions[at : at + TOKENIZE_AT_ONCE])) for at in spans])
        widths = self._width(tokens)
        order = torch.argsort(widths, stable=True)
        out = np.empty((len(captions), self.dim), np.float32)
        with torch.inference_mode():
            for chosen in order.split(self._texts_at_once):
                longest = int(widths[chosen].max())
                length = min(-(-longest // ROUND_TO) * ROUND_TO, tokens.shape[1])
                batch = tokens[chosen, :length].to(self.device)
                out[chosen.numpy()] = self._forward(self._encode_text, batch, self._texts_at_once)
        return out

    def _forward(self, encode: Any, batch: torch.Tensor, size: int) -> np.ndarray:
        import torch

        n = len(batch)
        if self._compiled and n < size:  # one shape a graph
            batch = torch.cat([batch, batch[:1].expand(size - n, *batch.shape[1:])])
        with torch.autocast(self.device.type, self._dtype) if self._dtype else contextlib.nullcontext():
            features = encode(batch)
        return torch.nn.functional.normalize(features[:n].float(), dim=-1).cpu().numpy()

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 N,H,W,3 -> float N,3,H,W on the device; a quarter of the bytes travel."""
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().mul_(self._scale).sub_(self._shift)

    def _normaliser(self) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        mean, std = (
            torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.preprocess.mean, self.preprocess.std)
        )
        return 1 / (255 * std), mean / std

    def _distrust_cut(self) -> None:
        """Should this open_clip run its text tower otherwise than we know, run it whole."""
        probe = ["a photo of a cat", "two small dogs sit in the grass beside a red wooden house, seen from above"]
        cut = self.embed_texts(probe)
        encode, width = self._encode_text, self._width
        self._encode_text = self._model.encode_text
        self._width = lambda tokens: tokens.new_full((len(tokens),), tokens.shape[1])
        if bool(((cut * self.embed_texts(probe)).sum(1) > SAME_COSINE).all()):
            self._encode_text, self._width = encode, width


def pair_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Cosine of each pair, float32, of unit vectors N,D and N,D."""
    return np.einsum("nd,nd->n", images, texts, dtype=np.float32)


_lock = threading.Lock()
_loaded: dict[str, ClipScorer] = {}


def load_scorer(score: Score) -> ClipScorer:
    """The scorer that the configuration names; loaded once a process and kept, until another one is asked for.

    Args:
        score: `pretrained` is a tag, or the path of a checkpoint (read as tensors only); with `hf-hub:`, `local-dir:`
            and `demo` it is ignored. Without it there are no weights, which is an error.

    Raises:
        UserError: an unknown model or tag (names the nearest), unreadable weights, a device that is not there.
    """
    score = resolved(score)
    device = _device(score.device)
    check_names(score)
    key = fingerprint(score.model, score.pretrained, _files_state(score), device, score.precision)
    key = fingerprint(key, score.compile, score.batch_size)
    with _lock:
        if key not in _loaded:
            loaded = load(score)
            _loaded.clear()  # two models at a time may be more than a device holds
            _loaded[key] = ClipScorer(loaded, device, score.batch_size, score.precision, score.compile)
        return _loaded[key]


def _files_state(score: Score) -> list[tuple[str, int, int]]:
    """Names, times and sizes of local weights: another file under the same name is another model."""
    if not is_local_checkpoint(score):
        return []
    place = Path(score.model.partition(":")[2] if score.model.startswith("local-dir:") else score.pretrained or "")
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    return [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"score.device: {wanted!r} cannot be used here ({first}). Remedy: `auto`, or `cpu`.") from None
    return wanted


def _autocast_dtype(precision: str, device_type: str) -> torch.dtype | None:
    import torch

    if precision == "auto":
        return torch.bfloat16 if device_type == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
