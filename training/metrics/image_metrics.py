"""Scores of generated pictures, for evaluation: Frechet inception distance and Inception score, by torchmetrics."""

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
    """Frechet inception distance (Heusel et al. 2017) and Inception score (Salimans et al. 2016).

    Both are named after a network that this package does not ship, so values can be compared only if they come from the
    same extractor. Unless there are more samples than features, the covariances lack full rank and the distance is too
    large: read `fid` together with `fid_samples` and `fid_features`. Only this rank's pictures count.

    Args:
        real, generated: pictures as the modules take them: one tensor (N x C x H x W), or batches.
        extractor: pictures to features (B x F).
        classifier: pictures to class logits (B x K); None: no Inception score.
        splits: groups of generated pictures; the Inception score is the mean over the groups.
        seed: of the division into groups. The global random state is not changed.

    Returns:
        `fid`, `fid_samples` (of the smaller set), `fid_features`; with a classifier `inception_score` (1 to K) and
        `inception_score_std`.

    Raises UserError: fewer than two pictures on a side, or features that are not a finite matrix.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    fid, logits, counts, width = None, [], {True: 0, False: 0}, 0
    with _evaluation_mode(extractor, classifier):
        for is_real, pictures in ((True, real), (False, generated)):
            for batch in pictures.split(batch_size) if isinstance(pictures, Tensor) else pictures:
                features_BF = _feature_matrix(extractor, batch)
                if fid is None:
                    width = features_BF.shape[1]
                    identity = nn.Identity()  # the features are made already
                    identity.num_features = width  # type: ignore[assignment]
                    fid = FrechetInceptionDistance(identity, sync_on_compute=False).to(features_BF.device)
                fid.update(features_BF, real=is_real)
                counts[is_real] += len(features_BF)
                if classifier is not None and not is_real:
                    logits.append(_feature_matrix(classifier, batch).log_softmax(1).clamp(min=_LOG_FLOOR))
    if fid is None or min(counts.values()) < 2:
        raise UserError(
            f"FID of {counts[True]} real and {counts[False]} generated pictures: a covariance needs at least 2 on "
            "each side, and should have more samples than the extractor has features. Remedy: use more samples."
        )
    scores = {"fid": max(fid.compute().item(), 0.0), "fid_samples": float(min(counts.values())), "fid_features": width}
    if logits:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # about memory, and about the deviation of one group
            torch.random.default_generator.manual_seed(seed)
            inception = InceptionScore(nn.Identity(), splits=min(splits, counts[False]), sync_on_compute=False)
            inception.update(torch.cat(logits))
            mean, deviation = inception.compute()
        scores |= {"inception_score": mean.item(), "inception_score_std": deviation.nan_to_num(0.0).item()}
    return scores


def _feature_matrix(module: nn.Module, batch: Tensor) -> Tensor:
    parameter = next(module.parameters(), None)
    out = module(batch if parameter is None else batch.to(parameter.device)).double()
    if out.ndim != 2 or not torch.isfinite(out).all():
        raise UserError(f"{type(module).__name__} gave {tuple(out.shape)}; expected finite numbers, batch x features")
    return out


@contextmanager
def _evaluation_mode(*modules: nn.Module | None) -> Iterator[None]:
    """Puts modules in evaluation mode, and restores the mode of each submodule afterwards."""
    modes = [(part, part.training) for module in modules if module is not None for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
