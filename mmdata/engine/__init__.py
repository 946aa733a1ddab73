"""Run a stage over the slices of a part, and decide what is stale."""
