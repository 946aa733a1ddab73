"""Releases once they are published: which there are, which are kept, which is the latest, and what goes."""
