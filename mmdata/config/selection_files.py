"""The user's own files that a selection reads: target and evaluation sets, and the weights of heads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from upath import UPath

from mmdata.config.evaluation_set import EvaluationSet
from mmdata.config.select import Select
from mmdata.config.select_scores import Target
from mmdata.errors import UserError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

State = list[tuple[str, int, float]]
"""Names, sizes and times of change of files, by which a changed file is noticed, as with local checkpoints."""


def selection_file_states(select: Select) -> list[State]:
    """The states of all files that the used scores and rules read, in the order in which they are used.

    Raises:
        UserError: a file or a folder is missing, or holds nothing of its kind; names it.
    """
    states = [file_state(target_files(target)) for target in select.targets if target.release is None]
    kinds = [select.scores[name] for name in select.used_scores if name in select.scores]
    states += [file_state([existing(UPath(kind.weights))]) for kind in kinds if kind.kind == "aesthetic"]
    return states + [file_state(target_files(one)) for one in select.decontaminate]


def target_files(target: Target | EvaluationSet) -> list[UPath]:
    """The pictures or tables of a set, sorted by path. Raises as `selection_file_states` does."""
    given = str(target.pictures if target.pictures is not None else target.table)
    what = "pictures" if target.pictures is not None else "Parquet files"
    root = existing(UPath(given))
    files = sorted(_walk(root) if root.is_dir() else [root], key=str)
    wanted = PICTURE_SUFFIXES if target.pictures is not None else {".parquet"}
    found = [path for path in files if path.suffix.lower() in wanted]
    if not found:
        raise UserError(
            f"{given}: a set of {what}, but there are none in it. Remedy: correct the path in section select."
        )
    return found


def existing(path: UPath) -> UPath:
    """The path. Raises UserError if nothing is there."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, but section select reads it. Remedy: correct the path there.")
    return path


def file_state(paths: list[UPath]) -> State:
    """What changes if one of the files does."""
    return [(path.name, (about := path.stat()).st_size, float(getattr(about, "st_mtime", 0.0))) for path in paths]


def _walk(folder: UPath) -> Iterator[UPath]:
    yield from (path for path in folder.rglob("*") if path.is_file() and not Path(path.name).name.startswith("."))
