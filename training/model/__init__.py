"""Encoders, fusion, language models and losses."""
