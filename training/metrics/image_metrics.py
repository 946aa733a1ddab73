"""Metrics of pictures: Frechet inception distance and Inception score, by any extractor."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmdata.errors import UserError

_LOG_FLOOR = -700.0  # smallest log-probability whose float64 exponential is not 0


@torch.no_grad()
def fid_and_inception_score(
    real: Tensor | Iterable[Tensor],
    generated: Tensor | Iterable[Tensor],
    extractor: nn.Module,
    classifier: nn.Module | None = None,
    *,
    splits: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """Frechet inception distance (Heusel et al. 2017) and Inception score (Salimans et al. 2016), by torchmetrics.

    Both carry the name of a network that this package does not ship: values compare only under one extractor. With no
    more samples than features the covariances have no full rank and the distance is biased upwards: read `fid` beside
    `fid_samples` and `fid_features`. Local to the calling rank.

    Args:
        real: pictures as the modules take them: one tensor (N x C x H x W), or batches.
        generated: likewise.
        extractor: pictures to features (B x F).
        classifier: pictures to class logits (B x K); None: no Inception score, for which features are no substitute.
        splits: groups of generated pictures over which the Inception score's mean and deviation are taken.
        batch_size: pictures at once, of a tensor.
        seed: of the division into groups; the global random state stays as it is.

    Returns:
        `fid`, `fid_samples` (of the smaller set), `fid_features`; with a classifier `inception_score` (1 to K) and
        `inception_score_std`.

    Raises:
        UserError: fewer than two pictures on a side, or features that are no finite matrix.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    fid, logits, seen, width = None, [], {True: 0, False: 0}, 0
    with _evaluating(extractor, classifier):
        for is_real, pictures in ((True, real), (False, generated)):
            for batch in pictures.split(batch_size) if isinstance(pictures, Tensor) else pictures:
                features_BF = _matrix(extractor, batch)
                if fid is None:
                    width = features_BF.shape[1]
                    same = nn.Identity()
                    same.num_features = width  # type: ignore[assignment]
                    fid = FrechetInceptionDistance(same, sync_on_compute=False).to(features_BF.device)
                fid.update(features_BF, real=is_real)
                seen[is_real] += len(features_BF)
                if classifier is not None and not is_real:
                    logits.append(_matrix(classifier, batch).log_softmax(1).clamp(min=_LOG_FLOOR))
    if fid is None or min(seen.values()) < 2:
        raise UserError(
            f"FID of {seen[True]} real and {seen[False]} generated pictures: a covariance needs at least 2 on each "
            f"side, and means something only with more samples than the extractor has features. Remedy: more samples."
        )
    scores = {"fid": max(fid.compute().item(), 0.0), "fid_samples": float(min(seen.values())), "fid_features": width}
    if logits:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # it keeps all logits; and one group has no deviation
            torch.random.default_generator.manual_seed(seed)
            inception = InceptionScore(nn.Identity(), splits=min(splits, seen[False]), sync_on_compute=False)
            inception.update(torch.cat(logits))
            mean, deviation = inception.compute()
        scores |= {"inception_score": mean.item(), "inception_score_std": deviation.nan_to_num(0.0).item()}
    return scores


def _matrix(module: nn.Module, batch: Tensor) -> Tensor:
    parameter = next(module.parameters(), None)
    out = module(batch if parameter is None else batch.to(parameter.device)).double()
    if out.ndim != 2 or not torch.isfinite(out).all():
        raise UserError(f"{type(module).__name__} gave {tuple(out.shape)}: want finite numbers, batch x features")
    return out


@contextmanager
def _evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Evaluation mode, and afterwards each submodule's own mode again."""
    modes = [(part, part.training) for module in modules if module is not None for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
