"""Compares training sets: trains the same small model on each of them, and tells what the difference is worth."""
