"""Who asked to be left out: standing lists, the log of forgotten samples, and redacted tables."""
