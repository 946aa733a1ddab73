"""The offline demo: pictures, a small web that serves them, and what became of each."""
