"""Every regular expression takes time in proportion to the text, whatever text a stranger sends.

A pattern such as `x*y` is harmless in most texts, and takes the square of the length in one that never has the y. The
texts are made of what each pattern itself looks for.
"""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

from tests.support.regexes import Attack, Expression, attacks, expressions

LONGEST = 65_536
FAST_S = 0.05  # a text of LONGEST characters takes milliseconds; one that takes longer is measured by its growth
EXPONENTIAL_S = 0.01  # for 22 characters, which take microseconds
MAX_GROWTH = 3.0  # of the time for twice the text: linear is 2, quadratic 4
EXPRESSIONS = expressions()


def seconds(pattern: re.Pattern[str], is_anchored: bool, text: str) -> float:
    """Processor time of every use of a pattern, which other processes do not disturb."""
    began = time.thread_time()
    pattern.match(text)
    pattern.fullmatch(text)
    if not is_anchored:
        for _ in pattern.finditer(text):
            pass
    return time.thread_time() - began


def worst_attack(expression: Expression) -> Attack:
    pattern = re.compile(expression.pattern, expression.flags)
    texts = attacks(expression.pattern, expression.flags)
    measure = partial(seconds, pattern, expression.is_anchored)
    slow = (attack for attack in texts if measure(attack.text(22)) > EXPONENTIAL_S)
    # more than once, because the garbage collector may run in the first one
    assert all(min(measure(attack.text(22)) for _ in range(3)) < EXPONENTIAL_S for attack in slow), "exponential"
    suspects = sorted(texts, key=lambda attack: -measure(attack.text(1024)))[:6]
    return max(suspects, key=lambda attack: min(measure(attack.text(2048)) for _ in range(3)))


def growth(expression: Expression, attack: Attack) -> float:
    """By how much the time grows with twice the text, from the first length that takes FAST_S on; 0: none does."""
    pattern = re.compile(expression.pattern, expression.flags)
    length = 2048
    while length <= LONGEST:
        taken = seconds(pattern, expression.is_anchored, attack.text(length))
        if taken > FAST_S:
            half, whole = (
                min(seconds(pattern, expression.is_anchored, attack.text(size)) for _ in range(3))
                for size in (length // 2, length)
            )
            return whole / max(half, 1e-6)
        length *= 2
    return 0.0


@pytest.mark.filterwarnings("ignore")
def test_no_expression_of_the_packages_takes_more_than_linear_time() -> None:
    slow = {}
    for expression in EXPRESSIONS:
        attack = worst_attack(expression)
        if (times := growth(expression, attack)) > MAX_GROWTH:
            slow[expression.place] = (expression.pattern, attack, round(times, 1))
    assert slow == {}, "Remedy: let no two repeats match the same text, and make repeats possessive (*+)"


def test_every_module_that_compiles_a_pattern_is_looked_at() -> None:
    places = {expression.place.partition(":")[0] for expression in EXPRESSIONS}
    assert {"mmdata/display.py", "mmdata/sources/subtitles.py", "mmdata/observe/logs.py"} <= places
    assert len(EXPRESSIONS) > 50


@pytest.mark.parametrize(
    ("pattern", "is_anchored", "is_slow"),
    [
        (r"(?<=://)[^\s/:@]+(?::\S*)?@", False, True),
        (r"[?&#](?:[^=&#\s]*token[^=&#\s]*|sig)=", False, True),
        (r"<\s*(/?\s*(?:image|video))\s*>", False, True),
        (r"\s+$", False, True),
        (r"\s+$", True, False),
        (r"<[^<>]*+>", False, False),
        (r"\d{1,6}:\d\d", False, False),
    ],
)
def test_slow_expressions_are_told_from_fast_ones(pattern: str, is_anchored: bool, is_slow: bool) -> None:
    expression = Expression("here", pattern, 0, is_anchored)
    assert (growth(expression, worst_attack(expression)) > MAX_GROWTH) == is_slow


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(?:a|a)*b"])
def test_an_exponential_expression_is_seen_with_a_short_text(pattern: str) -> None:
    with pytest.raises(AssertionError, match="exponential"):
        worst_attack(Expression("here", pattern, 0, True))
