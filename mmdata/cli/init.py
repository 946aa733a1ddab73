"""Commands that help to write corpus.yaml: `init` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; it is created if it does not exist.")],
) -> None:
    """Write a commented corpus.yaml.

    It contains every key with its meaning and its default value. An existing corpus.yaml is not overwritten.
    """
    from upath import UPath

    from mmdata.cli.corpus_template import corpus_template
    from mmdata.errors import UserError
    from mmdata.storage.atomic import publish_bytes

    target = folder / "corpus.yaml"
    if target.exists():
        raise UserError(f"{target} exists already and is left as it is. Remedy: give another folder.")
    (folder / "inbox").mkdir(parents=True, exist_ok=True)
    publish_bytes(UPath(target), corpus_template().encode())
    typer.echo(f"wrote {target}\nput metadata files into {folder / 'inbox'}, then: mmdata build -c {target}")


def schema() -> None:
    """Print the JSON schema of corpus.yaml.

    Editors use it to complete and check the file.
    """
    import json

    from mmdata.config import Corpus

    typer.echo(json.dumps(Corpus.model_json_schema(), indent=1, ensure_ascii=False))
