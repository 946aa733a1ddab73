"""The scorer: an open_clip dual encoder that embeds uint8 pictures and captions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.config import Score
from mmdata.config.scorers import is_local_checkpoint, resolved
from mmdata.errors import UserError, first_line
from mmdata.fingerprint import fingerprint
from mmdata.score.pretrained import LoadedModel, check_names, load_model, weights_digest
from mmdata.score.text_tower import LENGTH_MULTIPLE, trim_text_tower, whole_context

if TYPE_CHECKING:
    import torch

CAPTIONS_PER_TOKENIZER_CALL = 4096
# CLIP's tokenizer takes seconds for one word of 10,000 letters; no text has so few tokens as to need more than this.
MAX_CHARS_PER_TOKEN = 32
DEFAULT_CONTEXT_LENGTH = 77  # tokens that CLIP reads
# In a forward pass on a CPU core: a batch that fits its caches is faster than a GPU's batch, and needs far less memory.
IMAGES_PER_PASS, TEXTS_PER_PASS = 8, 32
MIN_COSINE_OF_TRIMMED = 0.9999  # between embeddings of the trimmed and the whole text tower


class ClipScorer:
    """Embeds pictures and captions into one space; cosines there are scores.

    On a CPU each core runs forward passes of its own. Cores that share a pass wait for each other after every layer;
    beside other processes, where a core may be busy elsewhere, that takes four times as long.

    Args:
        loaded: model, preprocessing and tokenizer.
        device: of torch, such as `cpu` or `cuda:1`.
        batch_size: pictures or captions in a forward pass, on a GPU; a CPU takes fewer.
        precision: `auto` (bfloat16 on CUDA, else float32), `fp32`, `bf16` or `fp16`.
        compiled: run the towers through `torch.compile`.

    Attributes:
        name: `model/tag`, as tables and manifests show it.
        fingerprint: of name, preprocessing, weights and number format; scores of different ones are not comparable.
        preprocess: sizes and resizing that the image tower needs.
        dim: length of an embedding.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: str = "cpu",
        batch_size: int = 256,
        precision: str = "auto",
        compiled: bool = False,
    ) -> None:
        import torch

        self.name = loaded.name
        self.preprocess = loaded.preprocess
        self.batch_size = batch_size
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._passes = torch.get_num_threads() if on_cpu and not compiled else 1  # at a time
        self._images_per_pass = min(batch_size, IMAGES_PER_PASS) if on_cpu else batch_size
        self._texts_per_pass = min(batch_size, TEXTS_PER_PASS) if on_cpu else batch_size
        self._dtype = _autocast_dtype(precision, self.device.type)
        weights = weights_digest(loaded.model)
        self.fingerprint = fingerprint(loaded.name, asdict(loaded.preprocess), weights, str(self._dtype))
        self._model = loaded.model.to(self.device)
        self._tokenize = loaded.tokenizer
        self._encode_image = self._model.encode_image
        self._encode_text, self._needed_lengths = trim_text_tower(self._model)
        mean, std = torch.tensor([self.preprocess.mean, self.preprocess.std], device=self.device).view(2, 3, 1, 1)
        self._pixel_scale, self._pixel_shift = 1 / (255 * std), mean / std
        self._compiled = False
        self.dim = int(self.embed_images(np.zeros((1, *self.preprocess.size, 3), np.uint8)).shape[1])
        self._use_whole_tower_if_trimmed_differs()
        if compiled:
            self._compiled = True
            self._encode_image, self._encode_text = torch.compile(self._encode_image), torch.compile(self._encode_text)

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embed pictures.

        Args:
            pixels: uint8 N,H,W,3 RGB, already of the model's size (see `mmdata.score.preprocess.fit_picture`).

        Returns:
            float32 N,D, of unit length; a row is NaN where the model returns NaN.
        """
        import torch

        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.preprocess.size, 3):
            raise ValueError(f"expected uint8 N,{self.preprocess.size},3, got {pixels.dtype} {pixels.shape}")
        size = self._images_per_pass

        def embed(start: int) -> np.ndarray:
            batch = self._normalise(torch.from_numpy(pixels[start : start + size]))
            return self._forward(self._encode_image, batch, size)

        embeddings = self._run_passes(embed, range(0, len(pixels), size))
        return np.concatenate(embeddings) if embeddings else np.empty((0, self.dim), np.float32)

    def embed_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions, each cut to the model's context by its own tokenizer.

        Captions are sorted by length, so that a batch of short captions is computed on few positions.

        Returns:
            float32 N,D, of unit length, in the order of the captions.
        """
        import torch

        if not captions:
            return np.empty((0, self.dim), np.float32)
        starts = range(0, len(captions), CAPTIONS_PER_TOKENIZER_CALL)
        max_chars = MAX_CHARS_PER_TOKEN * (getattr(self._tokenize, "context_length", None) or DEFAULT_CONTEXT_LENGTH)
        cut = [caption[:max_chars] for caption in captions]
        parts = [cut[start : start + CAPTIONS_PER_TOKENIZER_CALL] for start in starts]
        tokens = torch.cat([self._tokenize(part) for part in parts])
        lengths = self._needed_lengths(tokens)
        order = torch.argsort(lengths, stable=True)

        def embed(rows: torch.Tensor) -> np.ndarray:
            longest = int(lengths[rows].max())
            length = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, tokens.shape[1])
            return self._forward(self._encode_text, tokens[rows, :length].to(self.device), self._texts_per_pass)

        embeddings = np.empty((len(captions), self.dim), np.float32)
        embeddings[order.numpy()] = np.concatenate(self._run_passes(embed, order.split(self._texts_per_pass)))
        return embeddings

    def _run_passes(self, embed: Callable[[Any], np.ndarray], batches: Sequence[Any]) -> list[np.ndarray]:
        """`embed` each batch, in order of the batches; on a CPU as many at a time as there are cores."""
        import torch

        def run(batch: Any) -> np.ndarray:
            with torch.inference_mode():  # holds in its own thread only
                return embed(batch)

        if self._passes == 1:
            return [run(batch) for batch in batches]
        with ThreadPoolExecutor(self._passes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(run, batches))

    def _forward(self, encode: Any, batch: torch.Tensor, size: int) -> np.ndarray:
        """Run a tower on a batch of at most `size`, and normalise its output."""
        import torch

        count = len(batch)
        if self._compiled and count < size:  # fill up: every other shape would be compiled anew
            batch = torch.cat([batch, batch[:1].expand(size - count, *batch.shape[1:])])
        with torch.autocast(self.device.type, self._dtype) if self._dtype else contextlib.nullcontext():
            features = encode(batch)
        return torch.nn.functional.normalize(features[:count].float(), dim=-1).cpu().numpy()

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 N,H,W,3 -> float N,3,H,W on the device; uint8 travels to it, a quarter of the bytes of float32."""
        moved = pixels.to(self.device, non_blocking=True)
        return moved.permute(0, 3, 1, 2).float().mul_(self._pixel_scale).sub_(self._pixel_shift)

    def _use_whole_tower_if_trimmed_differs(self) -> None:
        """Run the whole text tower if this open_clip computes it in a way that `text_tower` does not know."""
        probe = ["a photo of a cat", "two small dogs sit in the grass beside a red wooden house, seen from above"]
        trimmed = self.embed_texts(probe)
        trimmed_encode, needed_lengths = self._encode_text, self._needed_lengths
        self._encode_text = self._model.encode_text
        self._needed_lengths = whole_context
        if bool(((trimmed * self.embed_texts(probe)).sum(1) > MIN_COSINE_OF_TRIMMED).all()):
            self._encode_text, self._needed_lengths = trimmed_encode, needed_lengths


def pair_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Cosine of each pair, float32 N, of unit vectors N,D and N,D."""
    return np.einsum("nd,nd->n", images, texts, dtype=np.float32)


_lock = threading.Lock()
_loaded_scorers: dict[str, ClipScorer] = {}


def load_scorer(score: Score, beside: int = 0) -> ClipScorer:
    """The scorer that the configuration names; loaded once in a process, and kept until another one is loaded.

    Args:
        score: `pretrained` is a tag, or the path of a checkpoint (read as tensors only); with `hf-hub:`, `local-dir:`
            and `demo` it is ignored. For all other models it is an error to leave it out.
        beside: how many others, those loaded last, stay loaded: a device may not hold more models.

    Raises:
        UserError: an unknown model or tag (names the nearest), unreadable weights, or a device that cannot be used.
    """
    score = resolved(score)
    device = resolve_device(score.device)
    check_names(score)
    key = fingerprint(score.model, score.pretrained, _checkpoint_state(score), device, score.precision)
    key = fingerprint(key, score.compile, score.batch_size)
    with _lock:
        if key not in _loaded_scorers:
            loaded = load_model(score)
            while len(_loaded_scorers) > beside:
                del _loaded_scorers[next(iter(_loaded_scorers))]
            _loaded_scorers[key] = ClipScorer(loaded, device, score.batch_size, score.precision, score.compile)
        return _loaded_scorers[key]


def _checkpoint_state(score: Score) -> list[tuple[str, int, int]]:
    """Names, times of change and sizes of local weights: a changed file under the same name is another model."""
    if not is_local_checkpoint(score):
        return []
    path = Path(score.model.partition(":")[2] if score.model.startswith("local-dir:") else score.pretrained or "")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]


def resolve_device(device: str, key: str = "score.device") -> str:
    """The device that a setting such as `score.device` means here. Raises UserError if it cannot be used here."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{key}: {device!r} cannot be used here ({first_line(error)}). Remedy: `auto`, or `cpu`."
        ) from None
    return device


def _autocast_dtype(precision: str, device_type: str) -> torch.dtype | None:
    import torch

    if precision == "auto":
        return torch.bfloat16 if device_type == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
