"""Fit and measure the projections of the offline demo scorer."""
