"""What the next build would do, and why: nothing here writes."""
