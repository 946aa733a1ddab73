"""Concept lists: the file that `select.balance.concepts` names."""

from __future__ import annotations

from upath import UPath

from mmdata.errors import UserError


def read_concepts(path: str) -> list[str]:
    """The concepts of a list: UTF-8, one a line. Blank lines, lines that begin with `#` and repetitions are skipped.

    Raises:
        UserError: the file is missing, is not UTF-8 or holds no concept.
    """
    try:
        lines = UPath(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"select.balance.concepts: {path} cannot be read ({error})") from None
    stripped = (line.strip() for line in lines)
    names = list(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))
    if not names:
        raise UserError(f"select.balance.concepts: {path} holds no concept. Remedy: write one a line, in UTF-8.")
    return names
