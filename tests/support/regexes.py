"""The regular expressions of the packages, and texts that make a slow one slow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmdata", "pipelines", "training")
METHODS = frozenset({"search", "match", "fullmatch", "sub", "subn", "findall", "finditer", "split"})
ALPHABETS = ["a", " ", "0", "<", "&", "\n", "-", ".", ":", "/", "@", "?", "#", "=", "_", "A", "'", '"', "é", "字", ","]
NAMED_PARTS = ("LITERAL", "RANGE")
CATEGORIES = dict(DIGIT=r"\d", NOT_DIGIT=r"\D", SPACE=r"\s", NOT_SPACE=r"\S", WORD=r"\w", NOT_WORD=r"\W")  # noqa: C408
MAX_TEXTS = 100  # per expression


class Expression(NamedTuple):
    """A regular expression in the source.

    Args:
        place: file and line.
        is_anchored: it is used by `match` and `fullmatch` only, which begin at the first character.
    """

    place: str
    pattern: str
    flags: int
    is_anchored: bool


def expressions() -> list[Expression]:
    """Every pattern that is passed to `re` as text, found in the syntax trees of the packages."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8")) for top in PACKAGES for path in (ROOT / top).rglob("*.py")
    }
    methods = _methods_by_name(trees.values())
    return [expression for path, tree in sorted(trees.items()) for expression in _expressions_of(path, tree, methods)]


def _methods_by_name(trees: Any) -> dict[str, set[str]]:
    """Name of a compiled pattern -> the methods that are called on it, anywhere."""
    methods: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name):
                methods.setdefault(node.value.id, set()).add(node.attr)
    return methods


def _expressions_of(path: Path, tree: ast.Module, methods: dict[str, set[str]]) -> Iterator[Expression]:
    constants: dict[str, str] = {}
    for node in tree.body:  # in order, because one constant may be made of others
        if isinstance(node, ast.Assign) and (text := _text(node.value, constants)) is not None:
            constants |= {target.id: text for target in node.targets if isinstance(target, ast.Name)}
    names = {
        id(node.value): target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        method = node.func.attr
        if method not in METHODS | {"compile"} or (pattern := _text(node.args[0], constants)) is None:
            continue
        used = {method} if method != "compile" else methods.get(names.get(id(node), ""), set())
        anchored = bool(used) and used <= {"match", "fullmatch"}
        yield Expression(f"{path.relative_to(ROOT)}:{node.lineno}", pattern, _flags(node), anchored)


def _flags(call: ast.Call) -> int:
    """The flags among the arguments of a call: `re.DOTALL | re.IGNORECASE`."""
    arguments = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
    names = [part.attr for argument in arguments for part in ast.walk(argument) if isinstance(part, ast.Attribute)]
    flags = [flag for name in names if isinstance(flag := getattr(re, name, None), re.RegexFlag)]
    return sum(map(int, set(flags)))


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    """The value of an expression that is text: literals, their sums, and f-strings with constants of the module.

    Bytes are read as Latin-1: the pattern then takes the same time with text.
    """
    if isinstance(node, ast.Constant):
        value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        return value if isinstance(value, str) else None
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left, constants), _text(node.right, constants)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
        return "".join(_text(part, constants) or "x" for part in parts)
    return None


class Attack(NamedTuple):
    """A text of any length: `prefix`, `pump` as often as is needed, `suffix`."""

    prefix: str
    pump: str
    suffix: str

    def text(self, length: int) -> str:
        return self.prefix + self.pump * (length // len(self.pump)) + self.suffix


def attacks(pattern: str, flags: int) -> list[Attack]:
    """Texts that begin like matches and never become one, from the parsed pattern."""
    tree = re._parser.parse(pattern, flags)  # type: ignore[attr-defined]
    repeats: list[tuple[str, list[str]]] = []
    whole = _example(tree, "", repeats)
    pumps: dict[tuple[str, str], None] = {("", letter): None for letter in ALPHABETS}
    prefixes = list(dict.fromkeys([whole, *(whole[:end] for end in range(1, min(len(whole), 24)))]))
    pumps |= {("", prefix): None for prefix in prefixes if prefix}
    for before, letters in repeats:
        for letter in letters:
            pumps[before, letter] = None
            pumps["", before + letter] = None
            pumps[before, letter * 2 + (before[-1:] or letter)] = None
        if len(letters) > 1:
            pumps[before, "".join(letters)] = None
    suffixes = ["", "\x00", "\n!", " ", whole[-1:] or "x"]
    found = [Attack(before, pump, suffix) for before, pump in pumps for suffix in dict.fromkeys(suffixes)]
    return found[:: max(1, len(found) // MAX_TEXTS)]


def _example(tree: Any, before: str, repeats: list[tuple[str, list[str]]]) -> str:
    """A text that the pattern matches, more or less; collects where a repeat begins, and what it repeats."""
    text = ""
    for operator, argument in tree:
        name = str(operator)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, body = argument
            once = _example(body, before + text, repeats)
            if most > 8:
                repeats.append((before + text, list(dict.fromkeys([*_letters(body), once or "x"]))[:6]))
            text += once * max(1, min(least, 40))
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            text += _example(argument[-1] if name == "SUBPATTERN" else argument, before + text, repeats)
        elif name == "BRANCH":
            text += next(iter([_example(branch, before + text, repeats) for branch in argument[1]]))
        elif name == "ASSERT" and argument[0] > 0:
            _example(argument[1], before + text, repeats)
        elif name == "ASSERT":
            text += _example(argument[1], before + text, repeats)
        else:
            text += (_letters([(operator, argument)]) or [""])[0]
    return text


def _letters(tree: Any) -> list[str]:
    """A few characters that the first element of a pattern matches."""
    for operator, argument in tree:
        name = str(operator)
        if name == "LITERAL":
            return [chr(argument)]
        if name in ("ANY", "NOT_LITERAL"):
            return ["a" if argument != ord("a") else "b", " "]
        if name == "IN":
            return _members(argument)
        if name == "SUBPATTERN":
            return _letters(argument[-1])
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return _letters(argument[2])
        if name == "ATOMIC_GROUP":
            return _letters(argument)
        if name == "BRANCH":
            return [letter for branch in argument[1] for letter in _letters(branch)][:6]
    return []


def _members(parts: Any) -> list[str]:
    """A few characters that a class matches: those that it names, and signs that split texts."""
    named = [chr(value if str(kind) == "LITERAL" else value[0]) for kind, value in parts if str(kind) in NAMED_PARTS]
    pattern = re.compile(f"[{''.join(_class_part(str(kind), value) for kind, value in parts)}]")
    return [letter for letter in dict.fromkeys([*named, *ALPHABETS, "\t"]) if pattern.fullmatch(letter)][:5]


def _class_part(kind: str, value: Any) -> str:
    """One part of a parsed class, written as a pattern again."""
    if kind == "NEGATE":
        return "^"
    if kind == "CATEGORY":
        return CATEGORIES[str(value).removeprefix("CATEGORY_")]
    return "-".join(re.escape(chr(code)) for code in ([value] if kind == "LITERAL" else value))
