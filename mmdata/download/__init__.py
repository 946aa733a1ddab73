"""Fetching media from the open web without being led astray, held up or filled up."""
