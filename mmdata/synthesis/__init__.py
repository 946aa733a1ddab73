"""Modalities that a machine makes where a sample lacks them."""
