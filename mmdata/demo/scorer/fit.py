"""Fit the two projections of the offline scorer: a closed-form start, then contrastive steps that stay near it."""

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
    """Settings of the fit.

    Args:
        steps, batch, learning_rate: of the contrastive fit (Adam).
    """

    dim: int = 256  # of the common space
    temperature: float = 3.0  # of the classifier's class probabilities
    ridge: float = 10.0  # penalty of the ridge regression at the start, in rows of data
    steps: int = 150
    check_steps: int = 5  # measure on the held-out source after so many steps; the step with the best result is kept
    batch: int = 512
    learning_rate: float = 1e-4
    stay: float = 1.0  # weight of the squared relative distance from the start
    cosine_temperature: float = 0.07  # of the contrastive loss at the start; it is learned
    same_text: float = 0.9  # captions of a batch with a text cosine above this are not negatives of one another
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Training pictures with their captions, as outputs of the frozen towers."""

    features: np.ndarray  # (pictures, 1280), pooled, not normalised
    captions: list[np.ndarray]  # for each picture (captions, 384), of unit length
    weights: np.ndarray  # (pictures,), proportional to how often a picture is drawn


def fit(
    pairs: Pairs, held_out: Pairs | None, class_texts: np.ndarray, classifier: tuple[Any, Any], settings: Settings
) -> tuple[dict[str, Any], int]:
    """Fit the projections: float16 tensors under the open_clip model's names. The same inputs give the same tensors.

    The start: the features' map is a ridge regression to the mean caption; the columns of classes are the embeddings
    of their names (ConSE); both are scaled to the same mean length and projected on the leading principal directions
    of all texts. The steps: symmetric InfoNCE over random captions, with early stopping by the AUC on a source that
    is not trained on.

    Args:
        held_out: pairs of that source; None: all steps are taken.
        class_texts: (1000, 384) of unit length: the embeddings of ImageNet's class names.
        classifier: the packaged weight (1000, 1280) and bias (1000,), torch tensors.

    Returns:
        The tensors, and the number of contrastive steps that led to them.
    """
    import torch

    images: Any = image_head(*classifier, settings.dim)
    texts: Any = text_head(settings.dim)
    start = _closed_form_start(pairs, class_texts, classifier, settings)
    with torch.no_grad():
        images.temperature.fill_(settings.temperature)
        for parameter, value in zip(_parameters(images, texts), start, strict=True):
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))
    steps_taken = _fit_contrastive(images, texts, pairs, held_out, settings)
    state = {f"visual.head.{name}": value for name, value in images.state_dict().items() if "classifier" not in name}
    state |= {f"text.proj.{name}": value for name, value in texts.state_dict().items()}
    return {name: value.detach().half().contiguous() for name, value in state.items()}, steps_taken


def _parameters(images: Any, texts: Any) -> list[torch.nn.Parameter]:
    return [*images.features.parameters(), images.classes.weight, *texts.project.parameters()]


def _closed_form_start(
    pairs: Pairs, class_texts: np.ndarray, classifier: tuple[Any, Any], settings: Settings
) -> Sequence[np.ndarray]:
    """Start values of `_parameters`, in their order."""
    raw_features = pairs.features.astype(np.float32)
    features = _unit(raw_features)
    targets = _unit(np.stack([captions.mean(axis=0) for captions in pairs.captions]))
    weights = (pairs.weights / pairs.weights.mean())[:, None]
    text_mean = (np.average(targets, axis=0, weights=weights[:, 0]) + class_texts.mean(axis=0)) / 2
    feature_mean = np.average(features, axis=0, weights=weights[:, 0])
    # weighted ridge regression from features to the mean caption
    x, y = features - feature_mean, targets - text_mean
    gram = (x * weights).T @ x + settings.ridge * np.eye(x.shape[1], dtype=np.float32)
    regression = np.linalg.solve(gram, (x * weights).T @ y)
    # the image head adds two terms: scale both to the same mean length
    classes = class_texts - class_texts.mean(axis=0)
    probabilities = _class_probabilities(raw_features, classifier, settings.temperature)
    regression /= np.linalg.norm(x @ regression, axis=1).mean()
    classes = classes / np.linalg.norm(probabilities @ classes, axis=1).mean()
    # the common space: leading principal directions of all texts
    all_texts = np.concatenate([np.concatenate(pairs.captions) - text_mean, class_texts - text_mean])
    basis = np.linalg.eigh(all_texts.T @ all_texts)[1][:, ::-1][:, : settings.dim]
    feature_map, feature_bias = (regression @ basis).T, -(feature_mean @ regression) @ basis
    return feature_map, feature_bias, (classes @ basis).T, basis.T, -text_mean @ basis


def _fit_contrastive(images: Any, texts: Any, pairs: Pairs, held_out: Pairs | None, settings: Settings) -> int:
    """Train both heads in place; return the number of the step whose parameters were kept."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(settings.seed)
    features = torch.from_numpy(pairs.features.astype(np.float32))
    counts = torch.tensor([len(texts_of_picture) for texts_of_picture in pairs.captions])
    first_caption = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    captions = torch.from_numpy(np.concatenate(pairs.captions).astype(np.float32))
    weights = torch.from_numpy(pairs.weights.astype(np.float32))
    parameters = _parameters(images, texts)
    start = [parameter.detach().clone() for parameter in parameters]
    log_scale = torch.tensor(-np.log(settings.cosine_temperature), dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([*parameters, log_scale], lr=settings.learning_rate)
    batch = min(settings.batch, len(features))
    targets = torch.arange(batch)
    best_step, best_parameters = 0, start
    best_auc = -1.0 if held_out is None else _held_out_auc(images, texts, held_out)
    for step in range(1, settings.steps + 1):
        rows = torch.multinomial(weights, batch, generator=generator)
        picks = (torch.rand(batch, generator=generator) * counts[rows]).long()
        drawn = captions[first_caption[rows] + picks]
        image = functional.normalize(images(features[rows]), dim=-1)
        text = functional.normalize(texts(drawn), dim=-1)
        same = (drawn @ drawn.T > settings.same_text).fill_diagonal_(False)
        logits = (log_scale.exp() * (image @ text.T)).masked_fill(same, -1e4)
        loss = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
        drift = sum(((p - s) ** 2).sum() / (s**2).sum() for p, s in zip(parameters, start, strict=True))
        optimiser.zero_grad()
        (loss + settings.stay * drift).backward()
        optimiser.step()
        if step == settings.steps or (held_out is not None and step % settings.check_steps == 0):
            step_auc = best_auc if held_out is None else _held_out_auc(images, texts, held_out)
            if held_out is None or step_auc > best_auc:
                best_step, best_auc = step, step_auc
                best_parameters = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, best_parameters, strict=True):
            parameter.copy_(value)
    return best_step


def _held_out_auc(images: Any, texts: Any, held_out: Pairs) -> float:
    """Chance that a picture is nearer to its own first caption than to that of another picture."""
    import torch
    from torch.nn import functional

    with torch.no_grad():
        image = functional.normalize(images(torch.from_numpy(held_out.features.astype(np.float32))), dim=-1)
        first = torch.from_numpy(np.stack([captions[0] for captions in held_out.captions]).astype(np.float32))
        cosines = (image @ functional.normalize(texts(first), dim=-1).T).numpy()
    return auc(np.diag(cosines), cosines[~np.eye(len(cosines), dtype=bool)])


def _class_probabilities(features: np.ndarray, classifier: tuple[Any, Any], temperature: float) -> np.ndarray:
    logits = (features @ classifier[0].numpy().T + classifier[1].numpy()) / temperature
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits / logits.sum(axis=1, keepdims=True)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
