"""Takedown: who asked to be left out, and how it is done: standing lists, the log, the removal."""
