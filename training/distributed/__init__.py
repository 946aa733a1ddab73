"""Several processes: device mesh and parallel wrappers."""
