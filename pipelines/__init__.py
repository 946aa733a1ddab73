"""The Dagster code location."""

import warnings

import dagster as dg

# Backfill and freshness policies are beta in Dagster 1.13; saying so on every start of every run helps nobody.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
