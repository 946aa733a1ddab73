"""Requests to the open web: guarded addresses, limits, politeness and retries."""
