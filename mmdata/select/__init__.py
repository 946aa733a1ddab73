"""Which samples a release holds, and how often: rows in, decision columns out."""
