"""The update of the catalogue from the sources, reported with the work that follows from it."""

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
    """Update the catalogue, and add to the report what the next build will do.

    On an object store the plan is made only from the stamps of the parts, so its counts are upper bounds. If no plan
    can be made, for example because a stamp is damaged, the report says why.

    Raises:
        UserError: see `update_catalog`.
    """
    from mmdata.sources.catalog import update_catalog

    before = workspace.catalog()
    report = update_catalog(corpus, workspace)
    try:
        plan = as_markdown(plan_refresh(corpus, workspace, before, fast=not is_local(workspace.root)))
    except MMDataError as error:
        plan = f"cannot be planned: {markdown(str(error))}"
    return replace(report, text={**report.text, "what this refresh implies": plan})
