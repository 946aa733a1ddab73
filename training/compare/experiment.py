"""The experiment: the same small model, trained for the same steps on each arm, measured on the same held-out pairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from upath import UPath

from mmdata.config import Corpus
from mmdata.errors import UserError
from mmdata.fingerprint import fingerprint
from mmdata.samples import hash_words, uid_words, unit_interval
from mmdata.storage.atomic import atomic_path
from training.compare.arms import Arm, open_arms
from training.compare.heads import Frozen, Recipe, train_and_rank
from training.compare.held_out import Likeness, draw_held_out, thin, too_like
from training.compare.outcome import ArmFacts, Outcome, outcome
from training.compare.pool import open_pool
from training.compare.recall import metrics

MIN_HELD_OUT = 20
CODE_VERSION = 1  # raise it when the training of heads changes: ranks in the cache are then computed again

OnStep = Callable[[str, int, int], None]
"""Called with what is done (`train ARM`, `embed`), how much of it, and of how much (0: not known)."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared, and how.

    Args:
        arms: as `open_arms` takes them.
        seeds: trainings of each arm.
        held_out_share: of the groups (or pictures) of the corpus, drawn by hash.
        max_held_out: at most so many pairs are evaluated on.
        max_pairs: of an arm at most so many pairs are trained on, those of the lowest hashes; the same in all arms.
        held_out: a release or a table of uids that is evaluated on instead of a share of the corpus.
        truth: a table with uid and `true_pair` (or the demo's `planted`), perhaps `concept` (or `kind`) and `of_uid`.
        group_column: a column of the source whose equal values mark pairs that belong together.
    """

    arms: Sequence[str]
    seeds: int = 10
    recipe: Recipe = field(default_factory=Recipe)
    held_out_share: float = 0.2
    max_held_out: int = 2000
    max_pairs: int = 200_000
    held_out: str | None = None
    truth: Path | None = None
    group_column: str | None = None


def compare(
    corpus: Corpus | None, experiment: Experiment, cache: UPath, on_step: OnStep = lambda what, done, total: None
) -> Outcome:
    """Run the experiment. What an earlier run has embedded or trained is read from `cache`.

    The result depends on neither the order of the arms nor that of the rows.

    Args:
        corpus: None: all arms are releases given by their folders.
        cache: a local folder.

    Raises:
        UserError: an arm, the truth or the held-out set cannot be found, or has no pair.
        DataError: a table or shard is damaged, or the pairs were embedded by different models.
    """
    started = time.monotonic()
    if len(experiment.arms) < 2:
        raise UserError("a comparison needs two arms. Remedy: `mmdata compare raw draft`.")
    arms = open_arms(experiment.arms, corpus)
    pool = open_pool(corpus, arms, experiment.held_out, experiment.truth, experiment.group_column, cache, on_step)
    rows = {arm.name: _rows_of(arm, pool.frame, experiment.max_pairs) for arm in arms}
    seed = corpus.seed if corpus is not None else 0
    drawn = pool.held_out
    if drawn is None:
        drawn = draw_held_out(pool.frame, experiment.held_out_share, experiment.max_held_out, seed)
    needed = np.unique(np.concatenate([drawn, *rows.values()]))
    vectors = pool.vectors(needed)
    place = np.full(len(pool.frame), -1, np.int64)
    place[needed] = np.where(vectors.has_both, np.arange(len(needed)), -1)
    frame = pool.frame[needed]
    alike = Likeness(frame, vectors.image)
    held_out = thin(alike, place[drawn][place[drawn] >= 0], experiment.max_held_out)
    if len(held_out) < MIN_HELD_OUT:
        raise UserError(
            f"{len(held_out)} pairs can be held out, and under {MIN_HELD_OUT} tell nothing. Remedy: a larger "
            "--held-out-share, or more rows."
        )
    left_out = too_like(alike, held_out, len(frame))
    frozen = _freeze(frame, vectors.image, vectors.text)
    ranks, facts = dict[str, np.ndarray](), list[ArmFacts]()
    for arm in arms:
        at = place[rows[arm.name]]
        kept = at[(at >= 0) & ~left_out[np.maximum(at, 0)]]
        if not len(kept):
            raise UserError(
                f"arm {arm.name}: none of its {len(at):,} pairs can be trained on beside the held-out ones."
            )
        facts.append(_facts(arm, frame, np.unique(at[at >= 0]), kept))
        ranks[arm.name] = _ranks(frozen, frame, kept, held_out, arm.name, experiment, cache, on_step)
    concepts = pool.concepts(frame, vectors.image)
    trainable = np.flatnonzero(~left_out)
    counts = Counter(concepts[at] for at in trainable)
    recalls = metrics([concepts[at] for at in held_out], counts)
    return outcome(
        experiment,
        facts,
        recalls,
        ranks,
        held_out=len(held_out),
        left_out=int(left_out.sum()) - len(held_out),
        held_out_from=experiment.held_out,
        knows_truth=pool.knows_truth,
        scorer=pool.scorer.name,
        seconds=time.monotonic() - started,
    )


def _rows_of(arm: Arm, frame: pl.DataFrame, most: int) -> np.ndarray:
    """Rows of the pool that an arm trains on, ascending; a pair that it repeats stands here so many times."""
    if arm.samples is None:
        rows, repeats = np.arange(len(frame)), np.ones(len(frame), np.int64)
    else:
        places = frame.select("uid").with_row_index("at").join(arm.samples, on="uid", how="inner").sort("at")
        rows, repeats = places["at"].to_numpy().astype(np.int64), places["repeats"].to_numpy().astype(np.int64)
    if not len(rows):
        raise UserError(f"arm {arm.name}: none of its samples is a fetched and scored pair of picture and caption.")
    if len(rows) > most:
        high, low = uid_words(frame["uid"].gather(rows))
        chosen = np.sort(np.argsort(unit_interval(hash_words(high, low, 0, "compare pairs")), kind="stable")[:most])
        rows, repeats = rows[chosen], repeats[chosen]
    return np.repeat(rows, repeats)


def _freeze(frame: pl.DataFrame, image: np.ndarray, text: np.ndarray) -> Frozen:
    import torch

    picture = frame.select(pl.coalesce("sha256", "uid").rank("dense").cast(pl.Int64)).to_series()
    caption = frame["caption"].str.strip_chars().rank("dense").cast(pl.Int64)
    return Frozen(
        torch.from_numpy(image),
        torch.from_numpy(text),
        torch.from_numpy(picture.to_numpy().copy()),
        torch.from_numpy(caption.to_numpy().copy()),
    )


def _facts(arm: Arm, frame: pl.DataFrame, distinct: np.ndarray, kept: np.ndarray) -> ArmFacts:
    known = frame["true_pair"].gather(np.unique(kept)).drop_nulls()
    return ArmFacts(
        name=arm.name,
        spec=arm.spec,
        distinct=len(distinct),
        trained_on=len(kept),
        trained_on_distinct=len(np.unique(kept)),
        true_share=float(known.mean()) if len(known) else None,  # type: ignore[arg-type]
    )


def _ranks(
    frozen: Frozen,
    frame: pl.DataFrame,
    kept: np.ndarray,
    held_out: np.ndarray,
    name: str,
    experiment: Experiment,
    cache: UPath,
    on_step: OnStep,
) -> np.ndarray:
    """Ranks S,2,N, from the cache where the same training was done before."""
    total, done = experiment.recipe.steps * experiment.seeds, 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        on_step(f"train {name}", done, total)

    uids = frame["uid"]
    inputs = [CODE_VERSION, asdict(experiment.recipe), experiment.seeds, uids.gather(held_out).to_list()]
    rows = np.unique(np.concatenate([kept, held_out]))
    digest = [_digest(tensor.numpy()[rows]) for tensor in (frozen.image, frozen.text)]
    path = cache / f"ranks-{fingerprint(*inputs, uids.gather(kept).to_list(), digest)}.npy"
    if not path.exists():
        found = train_and_rank(frozen, kept, held_out, list(range(experiment.seeds)), experiment.recipe, advance)
        with atomic_path(path) as draft, draft.open("wb") as file:
            np.save(file, found)
    return np.load(path.path)


def _digest(values: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
