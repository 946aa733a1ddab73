"""Scoring: how well picture and caption agree, and what text and image are like by themselves."""
