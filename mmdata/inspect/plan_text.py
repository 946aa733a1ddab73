"""A plan of the next build as text, for the UI and the command line."""

from __future__ import annotations

from mmdata.display import markdown
from mmdata.inspect.next_build import RefreshPlan, StageTotal
from mmdata.inspect.next_parts import StageWork
from mmdata.inspect.next_release import Forecast

MAX_LINES = 30  # per list in the UI


def release_line(forecast: Forecast) -> str:
    """Whether the latest release stays or a new one follows, in a few words."""
    if forecast.verdict == "stands":
        return f"release {forecast.latest} stands"
    if forecast.verdict == "none":
        return "no release"
    if forecast.verdict == "depends":
        return f"release {forecast.latest} stands, or is followed"
    new_id = f" {forecast.release_id}" if forecast.release_id else ""
    return f"a new release{new_id}" + (f" after {forecast.latest}" if forecast.latest else "")


def amount(work: StageWork | StageTotal) -> str:
    """The work of a stage in words: rows, and URLs if retries are due."""
    rows = f"{'' if work.is_exact else 'at most '}{work.rows:,} rows"
    return f"{rows}, {work.urls_due:,} URLs due" if work.urls_due else rows


def as_markdown(plan: RefreshPlan) -> str:
    """The plan as Markdown, with names and values from outside escaped."""
    lines = [f"**{markdown(release_line(plan.forecast))}**", ""]
    lines += [f"- {markdown(why)}" for why in plan.forecast.why]
    if plan.balance is not None:
        lines += ["", *(markdown(line) for line in (plan.balance.line(), *plan.balance.cut, *plan.balance.shortfalls))]
    if not plan.work:
        lines += ["", f"All {plan.parts:,} parts are up to date."]
    if plan.totals:
        lines += ["", "| stage | parts | slices | work |", "|---|---|---|---|"]
        lines += [f"| {total.stage} | {total.parts:,} | {total.slices:,} | {amount(total)} |" for total in plan.totals]
    if plan.settings:
        lines += ["", "Changed settings:", ""]
        lines += [f"- {stage}: {markdown(change)} ({n:,} parts)" for (stage, change), n in plan.settings.items()]
    if plan.files:
        lines += ["", "| file | what | rows |", "|---|---|---|"]
        files = plan.files[:MAX_LINES]
        lines += [f"| {markdown(file.path.rpartition('/')[2])} | {file.what} | {file.rows:,} |" for file in files]
    if plan.work:
        lines += ["", "| part | stage | slices | why |", "|---|---|---|---|"]
        for part in plan.work[:MAX_LINES]:
            lines += [
                f"| {part.part.name} | {work.stage} | {work.slices} of {work.of} | {markdown(work.why)} |"
                for work in part.stages
            ]
        if len(plan.work) > MAX_LINES:
            lines += ["", f"… and {len(plan.work) - MAX_LINES:,} more parts: `mmdata plan --fast --all`"]
    return "\n".join(lines)
