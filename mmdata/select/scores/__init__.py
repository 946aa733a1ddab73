"""Scores beside the cosine, computed from kept vectors slice by slice."""
