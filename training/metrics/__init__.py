"""Retrieval, text and image metrics."""
