"""Publish a release and verify it."""
