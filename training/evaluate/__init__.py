"""Evaluate a checkpoint on held-out data."""
