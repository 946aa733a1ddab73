"""Fitting the two projections: a closed-form start, then contrastive steps that stay near it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.demo.scorer.quality import auc
from mmdata.score.offline import image_head, text_head

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Settings:
    """How the projections are fitted.

    Args:
        dim: of the common space.
        temperature: of the classifier's soft answer.
        ridge: the start's penalty, in rows of data.
        steps, batch, learning_rate: of the contrastive fit (Adam).
        check_steps: how often the unseen source is looked at; the steps that suit it best are kept.
        stay: weight of the squared relative distance from the start.
        cosine_temperature: the contrastive loss's, to begin with; learnt.
        same_text: captions of a batch with a text cosine above this are no negatives of one another.
    """

    dim: int = 256
    temperature: float = 3.0
    ridge: float = 10.0
    steps: int = 150
    check_steps: int = 5
    batch: int = 512
    learning_rate: float = 1e-4
    stay: float = 1.0
    cosine_temperature: float = 0.07
    same_text: float = 0.9
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Training pictures with their captions, as the frozen towers see them.

    Args:
        features: (pictures, 1280), pooled, as the tower gives them.
        captions: each picture's, unit length, (captions, 384).
        weights: how often each picture is drawn, in proportion.
    """

    features: np.ndarray
    captions: list[np.ndarray]
    weights: np.ndarray


def fit(
    pairs: Pairs, unseen: Pairs | None, class_texts: np.ndarray, classifier: tuple[Any, Any], settings: Settings
) -> tuple[dict[str, Any], int]:
    """The projections' tensors, float16, under the open_clip model's names. The same inputs give the same tensors.

    The start: ridge regression from features to the mean caption, the class columns as their names' embeddings
    (ConSE), both at the same mean length, in the leading principal directions of all texts. The steps: symmetric
    InfoNCE over random captions, stopped early by the AUC on a source that is not trained on.

    Args:
        unseen: that source; None: all steps are taken.
        class_texts: (1000, 384), unit length: the embeddings of ImageNet's class names.
        classifier: the packaged weight (1000, 1280) and bias (1000,), torch tensors.

    Returns:
        the tensors, and how many contrastive steps they have seen.
    """
    import torch

    images: Any = image_head(*classifier, settings.dim)
    texts: Any = text_head(settings.dim)
    start = _start(pairs, class_texts, classifier, settings)
    with torch.no_grad():
        images.temperature.fill_(settings.temperature)
        for parameter, value in zip(_parameters(images, texts), start, strict=True):
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))
    taken = _contrast(images, texts, pairs, unseen, settings)
    state = {f"visual.head.{name}": value for name, value in images.state_dict().items() if "classifier" not in name}
    state |= {f"text.proj.{name}": value for name, value in texts.state_dict().items()}
    return {name: value.detach().half().contiguous() for name, value in state.items()}, taken


def _parameters(images: Any, texts: Any) -> list[torch.nn.Parameter]:
    return [
        images.features.weight,
        images.features.bias,
        images.classes.weight,
        texts.project.weight,
        texts.project.bias,
    ]


def _start(
    pairs: Pairs, class_texts: np.ndarray, classifier: tuple[Any, Any], settings: Settings
) -> Sequence[np.ndarray]:
    raw = pairs.features.astype(np.float32)
    features = _unit(raw)
    targets = _unit(np.stack([c.mean(axis=0) for c in pairs.captions]))
    weights = (pairs.weights / pairs.weights.mean())[:, None]
    text_mean = (np.average(targets, axis=0, weights=weights[:, 0]) + class_texts.mean(axis=0)) / 2
    feature_mean = np.average(features, axis=0, weights=weights[:, 0])
    x, y = features - feature_mean, targets - text_mean
    gram = (x * weights).T @ x + settings.ridge * np.eye(x.shape[1], dtype=np.float32)
    direct = np.linalg.solve(gram, (x * weights).T @ y)
    classes = class_texts - class_texts.mean(axis=0)
    answers = _soft_answers(raw, classifier, settings.temperature)
    direct /= np.linalg.norm(x @ direct, axis=1).mean()
    classes = classes / np.linalg.norm(answers @ classes, axis=1).mean()
    every = np.concatenate([np.concatenate(pairs.captions) - text_mean, class_texts - text_mean])
    basis = np.linalg.eigh(every.T @ every)[1][:, ::-1][:, : settings.dim]
    return (
        (direct @ basis).T,
        -(feature_mean @ direct) @ basis,
        (classes @ basis).T,
        basis.T,
        -text_mean @ basis,
    )


def _contrast(images: Any, texts: Any, pairs: Pairs, unseen: Pairs | None, settings: Settings) -> int:
    import torch
    from torch.nn import functional

    draw = torch.Generator().manual_seed(settings.seed)
    features = torch.from_numpy(pairs.features.astype(np.float32))
    counts = torch.tensor([len(one) for one in pairs.captions])
    firsts = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    captions = torch.from_numpy(np.concatenate(pairs.captions).astype(np.float32))
    weights = torch.from_numpy(pairs.weights.astype(np.float32))
    parameters = _parameters(images, texts)
    start = [parameter.detach().clone() for parameter in parameters]
    log_scale = torch.tensor(-np.log(settings.cosine_temperature), dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([*parameters, log_scale], lr=settings.learning_rate)
    batch = min(settings.batch, len(features))
    answer = torch.arange(batch)
    best, best_auc = (0, start), -1.0 if unseen is None else _unseen_auc(images, texts, unseen)
    for step in range(1, settings.steps + 1):
        rows = torch.multinomial(weights, batch, generator=draw)
        picks = (torch.rand(batch, generator=draw) * counts[rows]).long()
        said = captions[firsts[rows] + picks]
        image = functional.normalize(images(features[rows]), dim=-1)
        text = functional.normalize(texts(said), dim=-1)
        same = (said @ said.T > settings.same_text).fill_diagonal_(False)
        logits = (log_scale.exp() * (image @ text.T)).masked_fill(same, -1e4)
        loss = (functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)) / 2
        drift = sum(((p - s) ** 2).sum() / (s**2).sum() for p, s in zip(parameters, start, strict=True))
        optimiser.zero_grad()
        (loss + settings.stay * drift).backward()
        optimiser.step()
        if step == settings.steps or (unseen is not None and step % settings.check_steps == 0):
            reached = best_auc if unseen is None else _unseen_auc(images, texts, unseen)
            if unseen is None or reached > best_auc:
                best, best_auc = (step, [parameter.detach().clone() for parameter in parameters]), reached
    with torch.no_grad():
        for parameter, value in zip(parameters, best[1], strict=True):
            parameter.copy_(value)
    return best[0]


def _unseen_auc(images: Any, texts: Any, unseen: Pairs) -> float:
    """Each picture's first caption against every other picture's: P(own cosine > another's)."""
    import torch
    from torch.nn import functional

    with torch.no_grad():
        image = functional.normalize(images(torch.from_numpy(unseen.features.astype(np.float32))), dim=-1)
        first = torch.from_numpy(np.stack([one[0] for one in unseen.captions]).astype(np.float32))
        cosines = (image @ functional.normalize(texts(first), dim=-1).T).numpy()
    return auc(np.diag(cosines), cosines[~np.eye(len(cosines), dtype=bool)])


def _soft_answers(features: np.ndarray, classifier: tuple[Any, Any], temperature: float) -> np.ndarray:
    logits = (features @ classifier[0].numpy().T + classifier[1].numpy()) / temperature
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits / logits.sum(axis=1, keepdims=True)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
