"""Bytes on a disk or an object store: atomic writes, fences, Parquet tables and tars."""
