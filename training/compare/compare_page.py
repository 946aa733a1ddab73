"""A comparison on one self-contained HTML page, and as the report that the UI shows."""

from __future__ import annotations

from dataclasses import asdict

from upath import UPath

from mmdata.figures.intervals import Interval, interval_chart
from mmdata.figures.svg_chart import Chart
from mmdata.report.page import environment
from mmdata.stage import StageReport
from mmdata.storage.atomic import publish_bytes
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


def publish_comparison(outcome: Outcome, page: UPath) -> StageReport:
    """Write the page, and report the comparison: verdicts and intervals as tables, charts as pictures."""
    publish_bytes(page, compare_page(outcome).encode("utf-8", "xmlcharrefreplace"))
    headline = outcome.headline()
    return StageReport(
        stage="comparison",
        counts={"held_out": outcome.held_out, "left_out": outcome.left_out, "seeds": outcome.seeds},
        numbers={f"{HEADLINE} of {name}": sum(values) / len(values) for name, values in headline.seeds.items()},
        tables={
            "verdicts": [{"verdict": outcome.verdict(pair)} for pair in outcome.pairs()],
            "arms": [asdict(arm) for arm in outcome.arms],
            "differences": [
                {"metric": metric.name, "arm": second, "against": first, **asdict(gain), "word": gain.word}
                for metric in outcome.measured
                for (first, second), gain in metric.differences.items()
            ],
            "notes": [{"note": note} for note in outcome.notes()],
        },
        images={"seeds": seeds_chart(outcome).picture()}
        | {
            f"{second} against {first}": difference_chart(outcome, (first, second)).picture()
            for first, second in outcome.pairs()
        },
        paths={"page": str(page)},
    )
