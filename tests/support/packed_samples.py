"""Samples whose media lie in a file, as the packing of shards is given them."""

from __future__ import annotations

import io
import tarfile
from contextlib import nullcontext
from pathlib import Path

import polars as pl

from mmdata.storage.tar import padded

Members = tuple[tuple[str, bytes], ...]


def frame_of(tar: Path, samples: list[tuple[Members, bytes, str]], in_tar: bool = False) -> pl.DataFrame:
    """The samples as `members.complete` gives them, their media one after another in a file, or in a tar."""
    rows = []
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") if in_tar else nullcontext() as writer:
        for number, (media, facts, caption) in enumerate(samples):
            key, text = f"{number:032x}", caption.encode()
            stored = []
            for ext, data in media:
                if writer is not None:
                    info = tarfile.TarInfo(f"owner{number}.{ext}")
                    info.size, info.mtime = len(data), 1_700_000_000
                    offset = writer.offset + 512
                    writer.addfile(info, io.BytesIO(data))
                else:
                    offset = archive.tell()
                    archive.write(data)
                stored.append({"ext": ext, "offset": offset, "length": len(data)})
            first = stored[0] if stored else dict.fromkeys(("ext", "offset", "length"))
            sizes = [len(facts), len(text), *(one["length"] for one in stored)]
            rows.append(
                {
                    "key": key,
                    "part": "web-000000",
                    "tar": str(tar),
                    **first,
                    "further": stored[1:] or None,
                    "json": facts,
                    "txt": text,
                    "size": sum(padded(size) for size in sizes),
                }
            )
    tar.write_bytes(archive.getvalue())
    integers = dict.fromkeys(("offset", "length", "size"), pl.Int64)
    strings = dict.fromkeys(("key", "part", "tar", "ext"), pl.String)
    further = {"further": pl.List(pl.Struct({"ext": pl.String, "offset": pl.Int64, "length": pl.Int64}))}
    return pl.DataFrame(rows, schema={**strings, **integers, **further, "json": pl.Binary, "txt": pl.Binary})
