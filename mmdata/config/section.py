"""The base of every section of the configuration, and the types of the paths in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _beside_corpus_file(text: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    return text if folder is None or "://" in text or Path(text).is_absolute() else str(folder / text)


def _file_beside_corpus_file(text: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    return str(folder / text) if folder is not None and (folder / text).exists() else text


def _model_beside_corpus_file(text: str, info: ValidationInfo) -> str:
    folder = _folder(info)
    is_model = folder is not None and "/" in text and (folder / text).is_dir()
    return str(folder / text) if folder is not None and is_model else text


def _folder(info: ValidationInfo) -> Path | None:
    """The folder of corpus.yaml, where `load_corpus` has put it into the context of the validation."""
    return (info.context or {}).get("folder")


RelativePath = Annotated[str, AfterValidator(_beside_corpus_file)]
"""A path or a URL; a relative path counts from the folder of corpus.yaml."""

CheckpointOrTag = Annotated[str, AfterValidator(_file_beside_corpus_file)]
"""A file that lies beside corpus.yaml, else a tag."""

ModelFolderOrName = Annotated[str, AfterValidator(_model_beside_corpus_file)]
"""A model's folder that lies beside corpus.yaml (such as one that `mmdata train` made), else a name or a hub id."""
