"""The templates of the HTML pages, with their filters; `report.stage` and `diff_page` render them."""

from __future__ import annotations

from functools import cache

import jinja2

from mmdata.display import shown


@cache
def environment() -> jinja2.Environment:
    """The environment of the templates. It escapes every value, and an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmdata.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{int(value):,}",
        "megabytes": lambda value: f"{value / 1e6:,.1f} MB" if value < 1e9 else f"{value / 1e9:,.2f} GB",
        "percent": lambda value: f"{value:.1%}",
        "readable": shown,
    }
    return environment
