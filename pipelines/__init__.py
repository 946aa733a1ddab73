"""The Dagster code location."""

import warnings

# Backfill and freshness policies are beta in Dagster 1.13, and the reader of Pipes uses a preview feature. A warning at
# each start of each run helps nobody. The filter names the message and not Dagster's class of warnings: the training
# process imports only dagster_pipes, and must not import Dagster for this.
warnings.filterwarnings("ignore", message=r".* is currently in (beta|preview)")
