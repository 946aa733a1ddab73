"""The nightly look at the sources, with what it implies for the parts and the release."""

from __future__ import annotations

from dataclasses import replace

from mmdata.config import Corpus
from mmdata.display import markdown
from mmdata.errors import MMDataError
from mmdata.inspect.next_build import plan_refresh
from mmdata.inspect.plan_text import as_markdown
from mmdata.stage import StageReport
from mmdata.storage.atomic import is_local
from mmdata.workspace.layout import Workspace


def refresh_catalog(corpus: Corpus, workspace: Workspace) -> StageReport:
    """Bring the catalogue up to date, and say in the report what follows from it.

    On an object store the plan is read from the parts' stamps alone; its counts are then upper bounds.

    Raises:
        UserError: as `update_catalog`. A plan that cannot be told, say for a damaged stamp, is no error here.
    """
    from mmdata.sources.catalog import update_catalog

    before = workspace.catalog()
    report = update_catalog(corpus, workspace)
    try:
        told = as_markdown(plan_refresh(corpus, workspace, before, fast=not is_local(workspace.root)))
    except MMDataError as error:
        told = f"cannot be told: {markdown(str(error))}"
    return replace(report, text={**report.text, "what this refresh implies": told})
