"""Requests to the open web: checked addresses, limits, few requests at a time per host, and retries."""
