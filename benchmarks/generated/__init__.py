"""Inputs of benchmarks that are generated: no network, no model."""
