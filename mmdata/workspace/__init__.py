"""Where a corpus keeps its tables and media, and who may change them."""
