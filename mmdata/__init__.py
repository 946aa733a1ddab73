"""From web metadata to balanced, deduplicated multimodal training shards."""

__version__ = "0.1.0"
