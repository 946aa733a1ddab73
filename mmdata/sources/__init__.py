"""Metadata readers: from source files to rows."""
