"""What operators see of a run: logs, metrics and alerts."""
