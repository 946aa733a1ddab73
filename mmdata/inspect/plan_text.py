"""A plan in words: Markdown for the UI; the lines on the release for both."""

from __future__ import annotations

from mmdata.display import markdown
from mmdata.inspect.next_build import RefreshPlan, StageTotal
from mmdata.inspect.next_parts import StageWork
from mmdata.inspect.next_release import Forecast

SHOWN = 30  # lines of a list in the UI


def release_line(forecast: Forecast) -> str:
    """What becomes of the release, in a few words."""
    if forecast.verdict == "stands":
        return f"release {forecast.latest} stands"
    if forecast.verdict == "none":
        return "no release"
    if forecast.verdict == "depends":
        return f"release {forecast.latest} stands, or is followed"
    named = f" {forecast.release_id}" if forecast.release_id else ""
    return f"a new release{named}" + (f" after {forecast.latest}" if forecast.latest else "")


def amount(work: StageWork | StageTotal) -> str:
    """How much a stage has to do: rows, and URLs where it is about retries."""
    about = "" if work.is_exact else "at most "
    rows = f"{about}{work.rows:,} rows"
    return f"{rows}, {work.urls_due:,} URLs due" if work.urls_due else rows


def as_markdown(plan: RefreshPlan) -> str:
    """The plan as Markdown; names and values from outside are escaped."""
    lines = [f"**{markdown(release_line(plan.forecast))}**", ""]
    lines += [f"- {markdown(why)}" for why in plan.forecast.why]
    if not plan.work:
        lines += ["", f"All {plan.parts:,} parts are up to date."]
    if plan.totals:
        lines += ["", "| stage | parts | slices | work |", "|---|---|---|---|"]
        lines += [f"| {one.stage} | {one.parts:,} | {one.slices:,} | {amount(one)} |" for one in plan.totals]
    if plan.settings:
        lines += ["", "Changed settings:", ""]
        lines += [f"- {stage}: {markdown(said)} ({parts:,} parts)" for (stage, said), parts in plan.settings.items()]
    if plan.files:
        lines += ["", "| file | what | rows |", "|---|---|---|"]
        shown = plan.files[:SHOWN]
        lines += [f"| {markdown(one.path.rpartition('/')[2])} | {one.what} | {one.rows:,} |" for one in shown]
    if plan.work:
        lines += ["", "| part | stage | slices | why |", "|---|---|---|---|"]
        for part in plan.work[:SHOWN]:
            lines += [
                f"| {part.part.name} | {one.stage} | {one.slices} of {one.of} | {markdown(one.why)} |"
                for one in part.stages
            ]
        if len(plan.work) > SHOWN:
            lines += ["", f"… and {len(plan.work) - SHOWN:,} more parts: `mmdata plan --fast --all`"]
    return "\n".join(lines)
