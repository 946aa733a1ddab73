"""The assets, one file a group."""
