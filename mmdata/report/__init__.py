"""The HTML pages of a release: its report, and its difference from another."""
