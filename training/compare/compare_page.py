"""A comparison on one self-contained HTML page, and its charts, which the UI shows too."""

from __future__ import annotations

from mmdata.figures.intervals import Interval, interval_chart
from mmdata.figures.svg_chart import Chart
from mmdata.report.page import environment
from training.compare.outcome import Outcome
from training.compare.recall import HEADLINE
from training.compare.verdict import Word

_COLOURS: dict[Word, str] = {"better": "after", "worse": "held-out", "no difference seen": "before"}


def compare_page(outcome: Outcome) -> str:
    """The outcome as HTML: no script, nothing loaded from elsewhere, all text escaped."""
    tiles = [
        ("pairs held out", f"{outcome.held_out:,}"),
        ("left out as too like them", f"{outcome.left_out:,}"),
        ("seeds of each arm", f"{outcome.seeds:,}"),
        ("steps of each training", f"{outcome.steps:,}"),
        ("pairs a step", f"{outcome.batch:,}"),
    ]
    page = environment().get_template("compare.html.j2")
    return page.render(
        outcome=outcome,
        title=" · ".join(arm.name for arm in outcome.arms),
        verdicts=[outcome.verdict(pair) for pair in outcome.pairs()],
        tiles=tiles,
        seeds=seeds_chart(outcome).inline(),
        differences=[
            (second, first, difference_chart(outcome, (first, second)).inline()) for first, second in outcome.pairs()
        ],
        metrics=[
            (metric.name, [sum(values) / len(values) for values in metric.seeds.values()])
            for metric in outcome.measured
        ],
    )


def seeds_chart(outcome: Outcome) -> Chart:
    """The headline metric of each arm: every seed a dot, and their mean."""
    rows = [
        Interval(name, sum(values) / len(values), min(values), max(values), values)
        for name, values in outcome.headline().seeds.items()
    ]
    return interval_chart(rows, f"{HEADLINE} of each arm", f"{HEADLINE}; small dots are seeds, the bar is their range")


def difference_chart(outcome: Outcome, pair: tuple[str, str]) -> Chart:
    """All metrics of the second arm minus the first, with their intervals."""
    first, second = pair
    gains = [(metric.name, metric.differences[pair]) for metric in outcome.measured]
    rows = [Interval(name, gain.mean, gain.low, gain.high, css=_COLOURS[gain.word]) for name, gain in gains]
    return interval_chart(rows, f"{second} against {first}", "difference in recall, with its interval", zero=True)
