"""Charts and contact sheets, for the HTML pages and for the Dagster UI."""
