"""The corpus.yaml that `mmdata init` writes: made from the models, so that it cannot drift from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mmdata.config import Corpus, Filter, Source

EXAMPLES: dict[str, Any] = {
    "workspace": "./workspace",
    "sources.name": "web",
    "sources.kind": "laion",
    "sources.files": "inbox/*.parquet",
    "select.filter.min_clip_score": 0.28,
}
"""Values of keys that have no default, or that hardly any corpus goes without."""

OTHER_SOURCES = (
    "{name: pictures, kind: pairs, files: inbox/*.csv, columns: {url: link, caption: alt_text}}",
    "{name: cc3m, kind: pairs, files: inbox/Train_GCC-training.tsv, header: [caption, url], "
    "columns: {url: url, caption: caption}}",
    "{name: howto, kind: howto100m, files: inbox/HowTo100M_v1.csv, captions: inbox/raw_caption.json}",
    "{name: howto-vtt, kind: howto100m, files: inbox/index.csv, captions: 'inbox/captions/{video_id}.vtt', "
    "fetch_from: 'https://mirror.example/{video_id}.mp4'}",
    "{name: clips, kind: video, files: inbox/*.jsonl, columns: {url: url, caption: text, start_s: start, end_s: end}}",
    "{name: sounds, kind: audio, files: inbox/*.tsv, columns: {url: url, caption: transcript}}",
    "{name: pages, kind: documents, files: inbox/obelics/*.parquet}",
    "{name: texts, kind: text, files: inbox/*.jsonl.gz, columns: {caption: text}}",
)
"""Examples of the other kinds of sources."""

HEADER = """\
# A corpus for mmdata: which metadata, how it is fetched, measured, selected and packed.
# Every key is here with its default; a line that begins with `# key:` has no effect until you remove the `#`.
# Build it:  mmdata build -c corpus.yaml        Look at it:  mmdata ui -c corpus.yaml
"""


def corpus_template() -> str:
    """A commented corpus.yaml; it loads as it is."""
    return HEADER + "\n".join(_section(Corpus, "", "")) + "\n"


def _section(model: type[BaseModel], path: str, indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{path}{name}"
        submodel = _submodel(field)
        if not indent:
            yield ""
        if submodel is not None:
            if doc := (submodel.__doc__ or "").splitlines():
                yield f"{indent}# {doc[0]}"
            yield f"{indent}{name}:"
            yield from _section(submodel, f"{key}.", indent + "  ")
        elif key == "sources":
            yield f"{indent}# {field.description} Each begins with a dash."
            yield f"{indent}sources:"
            yield from _dashed(list(_section(Source, "sources.", "    ")))
            yield "  # Sources of other kinds; remove the `#` to use one:"
            yield from (f"  # - {example}" for example in OTHER_SOURCES)
        else:
            yield from _key(model, name, field, key, indent)


def _key(model: type[BaseModel], name: str, field: FieldInfo, path: str, indent: str) -> Iterator[str]:
    yield f"{indent}# {field.description}"
    default = field.get_default(call_default_factory=True)
    value = EXAMPLES.get(path, None if default is PydanticUndefined else default)
    # In a filter, a key overrides the preset even with its default value; so all its keys are commented out.
    is_off = path not in EXAMPLES and (value is None or model is Filter)
    yield f"{indent}{'# ' if is_off else ''}{name}: {_yaml(value)}"


def _dashed(lines: list[str]) -> Iterator[str]:
    """An item of a list: the dash goes before the first key, and the comment above it stays."""
    first_key = next(n for n, line in enumerate(lines) if not line.strip().startswith("#"))
    for n, line in enumerate(lines):
        yield f"  - {line.strip()}" if n == first_key else line


def _submodel(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _yaml(value: Any) -> str:
    """JSON is YAML; plain words need no quotes."""
    if isinstance(value, str) and value.replace("-", "").replace("_", "").replace("/", "").replace(".", "").isalnum():
        return value if not value.replace(".", "").isdigit() else json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
