"""Stands in for training/ where a test is about who starts it: same functions, same files, no torch, no learning.

Put tests/standins first on PYTHONPATH. Overrides steer it: see `config`.
"""
