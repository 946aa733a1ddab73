"""The Dagster code location."""

import warnings

# Backfill and freshness policies are beta in Dagster 1.13, and Pipes' own reader uses a preview; saying so on every
# start of every run helps nobody. By message: what trains needs Dagster's pipe alone, not Dagster, and not its import.
warnings.filterwarnings("ignore", message=r".* is currently in (beta|preview)")
