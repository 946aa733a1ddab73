"""Read a release: index, records, packing and batches."""
