"""What a run reads: releases and own instruction files, each with its weight; and what a checkpoint remembers of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.instruct.forms import is_record_file
from training.config import Data, DataSource, StageName
from training.data.own_records import COUNTS, OwnRecords, open_own_records
from training.data.sample_index import TrainingRelease, open_training_release


@dataclass(frozen=True, slots=True)
class Origin:
    """The data that a stage is trained on."""

    id: str  # of the release; of several sources all ids
    digest: str  # of the release's manifest; of several sources a hash of their digests and weights
    sources: tuple[dict[str, Any], ...] = ()  # of several: id, digest and weight of each


@dataclass(frozen=True)
class TrainingData:
    """The opened sources of a run, each with its weight."""

    releases: tuple[tuple[TrainingRelease, float], ...]
    own: tuple[tuple[OwnRecords, float], ...] = ()  # stage `instruct` alone reads them

    def counts_of_own(self) -> dict[str, Any]:
        """Of all own files: usable `records`, `bad` and `left_out` ones, and the `lists` that name the latter."""
        totals = {name: sum(records.counts[name] for records, _ in self.own) for name in COUNTS}
        return {
            "records": totals["train"] + totals["validation"],
            "bad": totals["bad"],
            "left_out": totals["left_out"],
            "lists": [str(records.left_out_path) for records, _ in self.own],
        }

    def origin(self, stage: StageName) -> Origin:
        """What a checkpoint of a stage remembers. Raises UserError: there is nothing that the stage reads."""
        opened: list[tuple[TrainingRelease | OwnRecords, float]] = [*self.releases]
        opened += self.own if stage == "instruct" else ()
        sources: tuple[dict[str, Any], ...] = tuple(
            {"id": source.id, "digest": source.digest, "weight": weight} for source, weight in opened
        )
        if not sources:
            names = ", ".join(str(records.path) for records, _ in self.own)
            raise UserError(
                f"stage `{stage}` reads releases, and {names} holds instructions. "
                "Remedy: --stage instruct, or a RELEASE beside it."
            )
        if len(sources) == 1:
            return Origin(sources[0]["id"], sources[0]["digest"])
        digest = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
        return Origin(" + ".join(str(source["id"]) for source in sources), digest, sources)


def open_training_data(paths: Sequence[str], data: Data, cache: Path) -> TrainingData:
    """Open releases and own files for training, and index those that have not been indexed before.

    Args:
        paths: of releases or own files, with weight 1; `data.sources` come after them.
        cache: local folder for memory-mapped files.

    Raises:
        UserError: there is no source, something is not there, or a source is named twice.
        DataError: a release is broken, or an own file has too many bad records.
    """
    named = [*(DataSource(path=path) for path in paths), *data.sources]
    if not named:
        raise UserError("there is nothing to train on. Remedy: a RELEASE, an own .json file, or data.sources.")
    releases: list[tuple[TrainingRelease, float]] = []
    own: list[tuple[OwnRecords, float]] = []
    for source in named:
        if is_record_file(source.path):
            pictures = [Path(place) for place in source.pictures]
            records = open_own_records(Path(source.path), pictures, source.held_out, cache, data.max_bad_share)
            own.append((records, source.weight))
        else:
            releases.append((open_training_release(source.path, cache), source.weight))
    names = {**{r.digest: r.id for r, _ in releases}, **{str(r.path.resolve()): r.id for r, _ in own}}
    if len(names) < len(named):
        raise UserError(
            f"{', '.join(source.path for source in named)}: one of them is named twice. "
            "Remedy: name it once, in data.sources with a larger weight."
        )
    return TrainingData(tuple(releases), tuple(own))


def open_measured(path: str, data: Data, cache: Path) -> TrainingData:
    """Open one source to measure a checkpoint on what it holds out. Raises as `open_training_data`.

    Args: data: of the checkpoint; an own file that is one of its sources is split as it was in training.
    """
    same = [source for source in data.sources if Path(source.path).resolve() == Path(path).resolve()]
    return open_training_data([], data.model_copy(update={"sources": same or [DataSource(path=path)]}), cache)
