"""Concept lists: the file that `select.balance.concepts` names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upath import UPath

from mmdata.errors import UserError

MAX_CHARACTERS = 500  # of a concept; the longest title of Wikipedia has 255
OTHER_LANGUAGES = "other"
"""The key of the list for captions of a language without a list, or of no known one."""
_REMEDY = "Remedy: write one concept a line, or a JSON list of texts, in UTF-8."
_COUNTED_LINE = re.compile(r'.*\S(?:\s*+[,;]|[^\S\t]*+\t)\s*+"?\d[\d.]*+"?\s*+')
_QUOTED_LINE = re.compile(r"""(["']).*\1,?|\[|\]""")


@dataclass(frozen=True, slots=True)
class Concepts:
    """The concepts of one list, or of a list for each language, one list after another.

    Args:
        entries: all concepts.
        languages: language -> the places of its list among `entries`; empty if one list is for all captions.
    """

    entries: Sequence[str]
    languages: Mapping[str, range] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        """A name for each concept: the concept, with its language before it where several have lists."""
        if not self.languages:
            return self.entries
        return [f"{language}:{self.entries[at]}" for language, places in self.languages.items() for at in places]

    @property
    def content(self) -> list[str] | dict[str, list[str]]:
        """What fingerprints are made of."""
        if not self.languages:
            return list(self.entries)
        return {name: list(self.entries[places.start : places.stop]) for name, places in self.languages.items()}


def read_concept_lists(paths: str | Mapping[str, str]) -> Concepts:
    """The list, or the lists of all languages, that `select.balance.concepts` names. Raises UserError; see below."""
    if isinstance(paths, str):
        return Concepts(read_concepts(paths))
    entries: list[str] = []
    languages: dict[str, range] = {}
    for language, path in sorted(paths.items()):
        of_language = read_concepts(path)
        languages[language] = range(len(entries), len(entries) + len(of_language))
        entries += of_language
    return Concepts(entries, languages)


def read_concepts(path: str) -> list[str]:
    """The concepts of a list, without blanks around them and without repetitions.

    The file is UTF-8, in one of these forms: one concept a line, where blank lines and lines that begin with `#` are
    skipped; a JSON list of texts, as MetaCLIP publishes its `metadata.json`; a JSON object whose keys are the concepts
    and whose values are counts (MetaCLIP's `entry_counts.json`), or one of a list for each language.

    Raises:
        UserError: the file is missing, is of another form (says which it looks like), or holds no concept.
    """
    try:
        text = UPath(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _problem(path, f"cannot be read ({error})") from None
    names = _of_json(path, text) if text.lstrip()[:1] in ("[", "{") else _of_lines(path, text)
    stripped = (name.strip() for name in names)
    concepts = list(dict.fromkeys(name for name in stripped if name))
    if not concepts:
        raise _problem(path, "holds no concept")
    longest = max(concepts, key=len)
    if len(longest) > MAX_CHARACTERS:
        raise _problem(path, f"has a concept of {len(longest):,} characters: {longest[:60]!r}…")
    return concepts


def _of_lines(path: str, text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    forms = {"a table with counts": _COUNTED_LINE.fullmatch, "a list of quoted texts": _QUOTED_LINE.fullmatch}
    for form, has_form in forms.items():
        if lines and all(has_form(line.strip()) for line in lines[1:] or lines):
            raise _problem(path, f"looks like {form}: {lines[-1].strip()[:60]!r} would be one concept")
    if path.lower().endswith((".csv", ".tsv", ".parquet")):
        raise _problem(path, "is a table by its name")
    return lines


def _of_json(path: str, text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _problem(path, f"begins as JSON does, but is not JSON ({error})") from None
    if isinstance(value, dict) and value and all(isinstance(names, list) for names in value.values()):
        value = [name for names in value.values() for name in names]
    elif isinstance(value, dict):
        value = _counted(path, value)
    return list(_texts(path, value))


def _counted(path: str, counts: Mapping[str, Any]) -> list[str]:
    for name, count in counts.items():
        if not isinstance(count, int | float) or isinstance(count, bool):
            raise _problem(path, f"is a JSON object whose key {name[:60]!r} has no count, but {str(count)[:60]!r}")
    return list(counts)


def _texts(path: str, values: Iterable[Any]) -> Iterable[str]:
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise _problem(path, f"is a JSON list whose element {place} is no text, but {str(value)[:60]!r}")
        yield value


def _problem(path: str, what: str) -> UserError:
    return UserError(f"select.balance.concepts: {path} {what}. {_REMEDY}")
