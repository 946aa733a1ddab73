"""The table of an export: size, speed and quality of a model and its variants, compared with their checkpoint."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.data.batch_readers import Reader, Share
from training.data.batch_stream import first_batches
from training.data.batch_types import Batch, to_device
from training.data.sample_index import TrainingRelease
from training.distributed.process_mesh import Mesh
from training.evaluate.answer import question_batch
from training.export.exported import MEDIA_FOLDER
from training.model.multimodal_lm import MultimodalLm
from training.stages.stage_model import StageModel, stage_settings
from training.stages.stage_reader import make_validation_reader
from training.stages.stage_step import validate

REPEATS = 5  # timed runs; their median is reported
ANSWER_TOKENS_TIMED, TEXT_TOKENS_TIMED = 32, 256  # generated one by one, and read at once
TEXTS = (
    "A red bird sits on a branch in the garden, early in the morning.",
    "Question: how many wheels does a bicycle have? Answer: two.",
    "The recipe needs flour, water, salt and a warm place for an hour.",
    "The next train to the north leaves from platform seven at noon.",
    "海边的日落。",
    "def area(width, height):\n    return width * height\n",
)
"""Texts on which logits and embeddings are compared; they need no release."""


class Comparison:
    """Compares language models: their quality with a checkpoint's, and their speed with the merged model's.

    Args: built: the checkpoint, on the CPU.
    """

    def __init__(self, built: StageModel, config: TrainConfig, mesh: Mesh, release: TrainingRelease | None) -> None:
        self._config, self._mesh = config, mesh
        self._held_out = held_out_batches(built, config, release, mesh) if release is not None else []
        self._expected_logits = text_logits(built)

    @torch.no_grad()
    def row(self, name: str, size_bytes: int, built: StageModel, merged: StageModel) -> dict[str, Any]:
        """Measure a model for a row of the table.

        Args:
            size_bytes: of its files or tensors.
            built: on the CPU; moved to the device.
            merged: the model that its speed is compared with. They are timed in turns, since a machine's speed varies.
        """
        logits = text_logits(built)
        for timed in (built, merged):
            timed.model.to(self._mesh.device).eval()
        decode_s, decode_merged_s = alternating_s(*(self._decode(timed) for timed in (built, merged)))
        read_s, read_merged_s = alternating_s(*(self._read(timed) for timed in (built, merged)))
        return {
            "name": name,
            "bytes": size_bytes,
            "llm_parameters": sum(p.numel() for p in built.llm.parameters()),
            "decode_tokens_per_s": ANSWER_TOKENS_TIMED / decode_s,
            "decode_speed": decode_merged_s / decode_s,
            "read_tokens_per_s": TEXT_TOKENS_TIMED / read_s,
            "read_speed": read_merged_s / read_s,
            "same_next_token": float((logits.argmax(-1) == self._expected_logits.argmax(-1)).float().mean()),
            "logit_difference": float((logits - self._expected_logits).abs().max()),
            **(validate(built, built.model, self._held_out, self._config, self._mesh) if self._held_out else {}),
        }

    def _decode(self, built: StageModel) -> Callable[[], Any]:
        """A function that generates an answer about a grey picture, token by token."""
        model = cast(MultimodalLm, built.model)
        question = "What is in the picture?" if built.stage == "instruct" else ""
        grey = torch.full((1, 3, *model.vision.preprocess.size), 127, dtype=torch.uint8)
        prompt = to_device(question_batch(built, grey, question), self._mesh.device)
        return lambda: model.generate(prompt, ANSWER_TOKENS_TIMED, ends=())

    def _read(self, built: StageModel) -> Callable[[], Any]:
        """A function that reads a text at once."""
        vocabulary = built.llm.get_input_embeddings().num_embeddings
        text = (torch.arange(TEXT_TOKENS_TIMED, device=self._mesh.device) % vocabulary)[None]
        # a float, so that the device is waited for
        return lambda: float(built.llm(input_ids=text, use_cache=False).logits[0, -1, 0])


@torch.no_grad()
def text_logits(built: StageModel) -> Tensor:
    """The language model's logits N,V at all N positions of TEXTS, without media."""
    _, codec = built.generative()
    device = built.llm.get_input_embeddings().weight.device
    rows = [codec.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in TEXTS]
    return torch.cat([built.llm(input_ids=row.to(device)).logits[0].float().cpu() for row in rows])


def held_out_batches(built: StageModel, config: TrainConfig, release: TrainingRelease, mesh: Mesh) -> list[Batch]:
    """The batches of the stage's validation; none if the release holds nothing out for it."""
    settings = stage_settings(built.stage, config)
    size = min(settings.batch_size, settings.validate_samples)
    reader: Reader[Any, Any] | None = make_validation_reader(built, release, config, size, Share())
    if reader is None:
        return []
    return list(first_batches(reader, min(settings.validate_samples, len(reader.source)), mesh.device))


def alternating_s(*functions: Callable[[], Any]) -> list[float]:
    """The seconds that each function takes: the median of REPEATS runs in turn, after one to warm up."""
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in range(REPEATS + 1):
        for function, taken_s in zip(functions, seconds, strict=True):
            begun = time.perf_counter()
            function()
            if turn:
                taken_s.append(time.perf_counter() - begun)
    return [statistics.median(taken_s) for taken_s in seconds]


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of a model's tensors; a tensor with two names counts once."""
    return sum(tensor.nbytes for tensor in {t.data_ptr(): t for t in model.state_dict().values()}.values())


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of a model's folder and its `multimodal/`, without variants and other folders."""
    return sum(
        path.stat().st_size for parent in (folder, folder / MEDIA_FOLDER) for path in parent.glob("*") if path.is_file()
    )


COLUMNS = {
    "bytes": ("MB", lambda v: f"{v / 1e6:.2f}"),
    "parameters": ("parameters", lambda v: f"{v:,}"),
    "llm_parameters": ("LLM parameters", lambda v: f"{v:,}"),
    "decode_tokens_per_s": ("answers, tokens/s", lambda v: f"{v:.0f}"),
    "decode_speed": ("x merged", lambda v: f"{v:.2f}"),
    "read_tokens_per_s": ("reads, tokens/s", lambda v: f"{v:.0f}"),
    "read_speed": ("x merged", lambda v: f"{v:.2f}"),
    "pictures_per_s": ("pictures/s", lambda v: f"{v:.0f}"),
    "val/loss": ("held-out loss", lambda v: f"{v:.4f}"),
    "val/perplexity": ("perplexity", lambda v: f"{v:.3f}"),
    "val/recall@1": ("Recall@1", lambda v: f"{v:.4f}"),
    "same_next_token": ("same next token", lambda v: f"{v:.1%}"),
    "logit_difference": ("largest logit difference", lambda v: f"{v:.2g}"),
    "embedding_difference": ("largest embedding difference", lambda v: f"{v:.2g}"),
}
"""The columns of the table: the key in a row, its heading, and a function that formats its value."""


def markdown(table: dict[str, Any]) -> str:
    """The table in Markdown, with notes that explain its numbers.

    Args: table: the content of table.json; see `export`.
    """
    columns = {key: column for key, column in COLUMNS.items() if any(key in row for row in table["rows"])}
    lines = [
        f"# {table['stage']}, step {table['step']}, of release {table['release_id']}",
        "",
        f"| | {' | '.join(heading for heading, _ in columns.values())} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for row in table["rows"]:
        cells = [write(row[key]) if key in row else "" for key, (_, write) in columns.items()]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    notes = [
        f"Measured on {table['device']}; speeds are medians of {REPEATS} and, beside them, the ratio to the merged "
        "model's, which took turns with it. MB are files on disk; of the checkpoint its tensors, without the "
        "optimiser's. Tokens and logits are compared with the checkpoint's.",
        *(NOTES[row["name"]] for row in table["rows"] if row["name"] in NOTES),
        *table["notes"],
    ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(notes) + "\n"


NOTES = {
    "merged": "`merged` is this folder: `AutoModelForCausalLM.from_pretrained` reads the language model, "
    "`training.export.exported.load_exported` all of it.",
    "open_clip": 'This folder opens as `open_clip.create_model("local-dir:…")` and as `score.model` of a corpus.',
    "transformers": "This folder opens as `AutoModel.from_pretrained(…)` of transformers, and as `score.model`.",
    "int8": "`int8`: the linear layers of the LLM's blocks in 8 bits, a scale a row; embeddings, head, encoders and "
    "connector in fp32. Products are taken in floats: fewer bytes are moved (answers), and more is computed (reading).",
    "pruned": "`pruned`: neurons are taken out of each MLP, not set to zero, so that files and products shrink. "
    "It was not trained afterwards.",
    "distilled": "`distilled`: every second layer of the LLM, taught by the whole one.",
}
