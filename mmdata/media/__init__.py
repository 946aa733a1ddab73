"""Decodes, cuts, blurs and synthesises pictures, sound and video."""
