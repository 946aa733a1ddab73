"""Zero-shot classification of held-out pictures by the names of classes (CLIP, Radford et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdata.display import markdown
from mmdata.errors import UserError
from mmdata.inspect.training_runs import CLASS_COLUMNS, class_rows
from training.data.batch_readers import PairReader
from training.data.examples import Pairs
from training.data.sample_index import TrainingRelease, row_uid
from training.data.sample_reader import BadSample
from training.evaluate.held_out_answers import concepts_of
from training.metrics.classification import AVERAGED, classification_report
from training.model.encoders import DualEncoder

CONCEPT = "concept"  # the column of the release's index; any other is a column of the source
PROMPT = "a photo of {}"
PROMPTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ClassQuestion:
    """What the pictures are classified by."""

    column: str  # where the true class of a sample stands: CONCEPT, or a column of the source
    names: Path | None = None  # a file with a class name a line; None: all classes that the column holds
    prompt: str = PROMPT  # the text of a class; {} stands for its name


def classify_pictures(
    model: DualEncoder,
    question: ClassQuestion,
    reader: PairReader,
    release: TrainingRelease,
    samples: int,
    uids: list[str],
    visual: Tensor,
) -> dict[str, Any]:
    """The classification report of the held-out pictures and clips whose class is one of the names.

    Args:
        samples: that were read, the first of the reader's order.
        uids, visual: of those with a picture or frames, and their embeddings N,D.

    Returns: `classification_report`, with `column`, `prompt`, and `left_out`: pictures without a class of these names.
    Raises UserError: no picture has a class, the prompt has no place for a name, or the file has no names.
    """
    if "{}" not in question.prompt:
        raise UserError(f"prompt {question.prompt!r}: has no place for a class. Remedy: such as {PROMPT!r}.")
    of_uid = concepts_of(release, uids) if question.column == CONCEPT else _column(question.column, reader, samples)
    truth = [of_uid.get(uid) for uid in uids]
    names = sorted({name for name in truth if name is not None}) if question.names is None else _read(question.names)
    place = {name: at for at, name in enumerate(names)}
    kept = [at for at, name in enumerate(truth) if name in place]
    if not kept:
        raise UserError(
            f"column {question.column}: no held-out picture has a class there"
            f"{'' if question.names is None else f' that {question.names} names'}. "
            f"Remedy: `{CONCEPT}` where the corpus has a list of concepts, or a column of the source."
        )
    scores = visual[kept] @ _embedded(model, [question.prompt.replace("{}", _spoken(name)) for name in names]).cpu().T
    report = classification_report([place[str(truth[at])] for at in kept], scores.argmax(1).tolist(), names)
    return {
        "column": question.column, "prompt": question.prompt, "left_out": len(truth) - len(kept), **report
    }  # fmt: skip


def _column(column: str, reader: PairReader, samples: int) -> dict[str, str]:
    """What a column of the source holds for the first samples of a reader's order, by uid."""
    pairs: Any = reader.source
    assert isinstance(pairs, Pairs)
    classes: dict[str, str] = {}
    for index in reader.order.pick(0, np.arange(samples)).samples:
        try:
            value = pairs.own_columns(int(index)).get(column)
        except BadSample:
            continue
        if value is not None:
            classes[row_uid(pairs.row(int(index)))] = str(value)
    return classes


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}. Remedy: a UTF-8 text file, a class name a line.") from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError(f"{path}: has no class names. Remedy: a class name a line.")
    return names


def _spoken(name: str) -> str:
    """A concept without the language that may stand before it (`en:cat`)."""
    language, colon, rest = name.partition(":")
    return rest if colon and len(language) == 2 and language.isalpha() else name


@torch.no_grad()
def _embedded(model: DualEncoder, texts: list[str]) -> Tensor:
    """Embeddings N,D of unit length."""
    device = model.logit_scale.device
    chunks = [texts[at : at + PROMPTS_AT_ONCE] for at in range(0, len(texts), PROMPTS_AT_ONCE)]
    return torch.cat(
        [F.normalize(model.embed_texts(model.tokenize(chunk).to(device)).float(), dim=-1) for chunk in chunks]
    )


def report_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The headline figures of a report, for the metrics of an evaluation."""
    averages = {f"zero_shot/{kind}_{name}": report[kind][name] for kind in ("macro", "weighted") for name in AVERAGED}
    return {"zero_shot/accuracy": report["accuracy"], "zero_shot/samples": float(report["samples"]), **averages}


def report_lines(report: dict[str, Any]) -> list[str]:
    """A report as Markdown, below what it says of itself."""
    lines = [
        "",
        f"Zero-shot classes of column `{report['column']}`, asked with {markdown(report['prompt'])}: "
        f"{report['samples']} pictures, accuracy {report['accuracy']:.3f}; {report['left_out']} without a class.",
        "",
        f"| {' | '.join(CLASS_COLUMNS)} |",
        "|---|---:|---:|---:|---:|",
    ]
    return lines + [f"| {' | '.join(map(markdown, row))} |" for row in class_rows(report)]
