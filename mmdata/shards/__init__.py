"""Releases: byte-deterministic shards, their index, their manifest, and the proof that they are whole."""
