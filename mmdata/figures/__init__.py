"""Charts, plots and contact sheets, for the report and for the Dagster UI."""
