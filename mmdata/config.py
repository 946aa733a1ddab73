"""One typed tree describes a corpus: what `corpus.yaml` may say, its defaults, and what each key means."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mmdata.errors import UserError

MAX_CONFIG_BYTES = 1_000_000  # a larger corpus.yaml is a mistake, or an alias bomb


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """One input of metadata: which files, and how their columns are read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Names the parts: `web` gives `web-000000`.")
    kind: Literal["laion", "pairs"] = Field(
        description="`laion` reads LAION-5B, LAION-400M and DataComp columns as they are; `pairs` takes a mapping."
    )
    files: str = Field(description="Glob of the metadata files, relative to corpus.yaml, or a URL such as s3://…")
    part_rows: int = Field(200_000, ge=1, le=10_000_000, description="Rows a part: what a person retries.")
    slice_rows: int = Field(10_000, ge=1, le=1_000_000, description="Rows a slice: what a worker does.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="`pairs` only: our name -> the file's column. Names: url, caption, lang, expected_sha256.",
    )

    @model_validator(mode="after")
    def _mapping_is_complete(self) -> Source:
        known = {"url", "caption", "lang", "expected_sha256"}
        if self.kind == "pairs" and not {"url", "caption"} <= set(self.columns):
            raise ValueError("a `pairs` source needs columns: {url: <column>, caption: <column>}")
        if self.kind != "pairs" and self.columns:
            raise ValueError(f"`columns` belongs to kind `pairs`; kind `{self.kind}` knows its columns")
        if unknown := set(self.columns) - known:
            raise ValueError(f"columns: {sorted(unknown)} not known; the names are {sorted(known)}")
        return self


class Download(Section):
    """How media is fetched, and what is refused."""

    image_size: int = Field(256, ge=16, le=4096, description="Pixels of the shorter side after resizing; never up.")
    encode_quality: int = Field(95, ge=1, le=100, description="JPEG quality of the stored image.")
    timeout_s: float = Field(10, gt=0, description="Seconds without a byte before a connection is given up.")
    deadline_s: float = Field(60, gt=0, description="Wall-clock seconds for one URL, redirects included.")
    max_bytes: int = Field(20_000_000, ge=1, description="Bytes of one response; a longer one is refused.")
    max_pixels: int = Field(100_000_000, ge=1, description="Pixels an image may decode to; a larger one is refused.")
    retries: int = Field(2, ge=0, le=10, description="Further tries within one run, for faults that may pass.")
    max_attempts: int = Field(5, ge=1, description="Tries over all runs before a URL is given up.")
    retry_after_s: float = Field(86_400, gt=0, description="Seconds to the next run's retry; doubles each time.")
    threads: int = Field(32, ge=1, le=1024, description="Fetching threads a process.")
    per_host: int = Field(8, ge=1, description="Connections open to one host at a time.")
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="Host names or networks (CIDR) allowed though not public, e.g. 127.0.0.0/8 for a local mirror.",
    )
    respect_robots: bool = Field(True, description="Honour `X-Robots-Tag: noai, noimageai, noindex, noimageindex`.")
    user_agent: str = Field("mmdata", description="Sent as the User-Agent, and matched against X-Robots-Tag.")
    min_success_share: float = Field(
        0.1, ge=0, le=1, description="A part with a smaller share of fetched rows is not accepted into releases."
    )


class Score(Section):
    """Which open_clip model scores the pairs, and on what."""

    model: str = Field(
        "ViT-B-32",
        description="An open_clip model, `hf-hub:…`, `demo` (the small offline scorer), or a folder of stage `align`.",
    )
    pretrained: str | None = Field("laion2b_s34b_b79k", description="open_clip's pretrained tag or a checkpoint path.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    batch_size: int = Field(256, ge=1, description="Samples a forward pass.")
    threads: int = Field(0, ge=0, description="Decoding threads; 0 means one a core.")
    compile: bool = Field(False, description="torch.compile the towers: worth it for long runs on a GPU.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="`auto`: bf16 on CUDA, else fp32.")

    @model_validator(mode="before")
    @classmethod
    def _demo_has_no_tag(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("model") == "demo":
            return {"pretrained": None, **data}
        return data


class Filter(Section):
    """Which samples are good enough. Every rule that is set applies; the first that fails is the reason."""

    preset: Literal["laion2b", "datacomp-basic", "clip-l14-top30"] | None = Field(
        None, description="A published recipe; keys set beside it override it."
    )
    min_clip_score: float | None = Field(None, ge=-1, le=1, description="Image-text cosine at least this.")
    top_fraction: float | None = Field(None, gt=0, le=1, description="Keep exactly this best share by CLIP score.")
    languages: list[str] | None = Field(None, description="ISO 639-1 codes of the captions to keep.")
    min_lang_prob: float = Field(0.0, ge=0, le=1, description="Below this the language counts as unknown (dropped).")
    min_words: int | None = Field(None, ge=0, description="Words in the caption.")
    max_words: int | None = Field(None, ge=1, description="Words in the caption.")
    min_chars: int | None = Field(None, ge=0, description="Characters in the caption.")
    min_side: int | None = Field(None, ge=1, description="Pixels of the original's shorter side.")
    max_aspect: float | None = Field(None, ge=1, description="Longer side over shorter side.")
    min_sharpness: float | None = Field(None, ge=0, description="Variance of the Laplacian.")
    max_punsafe: float | None = Field(None, ge=0, le=1, description="The source's own `punsafe`, where it has one.")
    max_pwatermark: float | None = Field(None, ge=0, le=1, description="The source's own `pwatermark`.")

    @model_validator(mode="after")
    def _one_score_rule(self) -> Filter:
        if self.min_clip_score is not None and self.top_fraction is not None:
            raise ValueError("set min_clip_score or top_fraction, not both: the second would hide the first")
        return self


class Dedup(Section):
    """What counts as the same. The best-scored of a set stays."""

    url: bool = Field(True, description="Same canonical URL.")
    exact: bool = Field(True, description="Same sha256 of the fetched bytes.")
    phash_bits: int | None = Field(4, ge=0, le=16, description="Perceptual-hash bits that may differ; null: off.")
    semantic_eps: float | None = Field(
        0.05, ge=0, le=1, description="Duplicate if cosine >= 1 - eps within a cluster (SemDeDup); null: off."
    )
    clusters: int | None = Field(None, ge=1, description="k-means clusters; null: about the square root of the rows.")


class Balance(Section):
    """How modalities and concepts are evened out by keeping less of the common."""

    max_ratio: float | None = Field(3.0, ge=1, description="Largest signature over smallest; null: off.")
    mix: dict[str, float] | None = Field(None, description="Instead: signature -> share, e.g. {image+text: 0.7, …}.")
    by: Literal["samples", "tokens", "seconds"] = Field("samples", description="What the ratio counts.")
    tail_share: float = Field(0.01, ge=0, lt=1, description="A signature below this share does not set the cap.")
    concepts: str | None = Field(None, description="A concept list, one a line (MetaCLIP); null: no concept balance.")
    concept_cap: int = Field(20_000, ge=1, description="MetaCLIP's t: matches a concept keeps before it is thinned.")
    tolerance: float = Field(0.1, ge=0, description="A rate is kept from the last release unless it drifts by more.")

    @field_validator("mix")
    @classmethod
    def _shares_sum_to_one(cls, mix: dict[str, float] | None) -> dict[str, float] | None:
        if mix is not None and (abs(sum(mix.values()) - 1) > 1e-6 or min(mix.values()) < 0):
            raise ValueError(f"shares must be >= 0 and sum to 1, not {sum(mix.values()):g}")
        return mix


class Oversample(Section):
    """How often the rare is repeated (repeat factor sampling, LVIS)."""

    threshold: float = Field(0.01, ge=0, le=1, description="A concept rarer than this share of a corpus is repeated.")
    max_repeats: int = Field(4, ge=1, le=100, description="Copies of one sample at most; 1: off.")


class Select(Section):
    """Which samples a release holds, and how often."""

    filter: Filter = Filter()
    dedup: Dedup = Dedup()
    balance: Balance = Balance()
    oversample: Oversample = Oversample()


class Shards(Section):
    """How the release is packed."""

    shard_mb: float = Field(256, gt=0, description="Megabytes (10^6 bytes) a shard, about.")
    validation_fraction: float = Field(0.01, ge=0, lt=1, description="Share of clusters held out as `validation`.")


TASKS = Literal["caption", "detailed_caption", "match", "reference_image", "text_qa", "text_to_image"]


class Instruct(Section):
    """Which instruction records are written beside the shards."""

    tasks: list[TASKS] = Field(default=["caption", "match", "reference_image"], description="Tasks to write.")
    languages: list[Literal["en", "zh"]] = Field(default=["en", "zh"], min_length=1, description="Template languages.")
    formats: list[Literal["record", "llava", "chat"]] = Field(
        default=["record", "llava", "chat"], description="JSONL forms; one file each."
    )
    images: Literal["path", "base64"] = Field("path", description="`path` points into the shards.")


class Engine(Section):
    """Where slices run."""

    backend: Literal["local", "ray"] = Field("local", description="`ray` needs the `ray` extra and a cluster.")
    workers: int = Field(1, ge=1, description="Slices at a time, each in a process of its own; 1: in this one.")

    @property
    def in_this_process(self) -> bool:
        """Whether slices run where the caller is, so that they may call back (progress)."""
        return self.backend == "local" and self.workers == 1


class Refresh(Section):
    """When the graph runs by itself."""

    refresh_cron: str = Field("0 1 * * *", description="Looks for new and changed source files.")
    release_cron: str = Field("0 5 * * *", description="Publishes from the parts that are accepted.")
    timezone: str = Field("UTC", description="An IANA time zone.")
    max_parts_per_tick: int = Field(20, ge=1, description="Part runs requested at once by the sensor.")
    owners: list[str] = Field(default=["team:data"], description="Shown on every asset: an e-mail or `team:…`.")


class Train(Section):
    """What the graph's job `train_release` and `mmdata train` train on a release. It runs when someone asks for it."""

    preset: str | None = Field(
        "tiny", description="A preset of `mmdata train`: `tiny` trains in seconds on a CPU; null: as `config` says."
    )
    config: str | None = Field(None, description="A train.toml over the preset, relative to corpus.yaml.")
    set: list[str] = Field(
        default_factory=list, description="`key=value` over both, as `mmdata train --set` takes them."
    )
    output: str | None = Field(
        None, description="The models' folder, in it one a release and preset; null: `training` in a local workspace."
    )
    processes: int = Field(1, ge=1, description="Processes on this machine, one a GPU; more than 1 start by torchrun.")

    @model_validator(mode="before")
    @classmethod
    def _a_file_names_its_own_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("config"):
            return {"preset": None, **data}
        return data

    @field_validator("set")
    @classmethod
    def _pairs(cls, pairs: list[str]) -> list[str]:
        if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
            raise ValueError(f"expected key=value, such as align.lr=0.001, not {wrong[0]!r}")
        return pairs


class Corpus(Section):
    """A corpus: everything that `corpus.yaml` says."""

    workspace: str = Field(description="Where all data lies: a folder, relative to corpus.yaml, or s3://bucket/prefix.")
    seed: int = Field(0, description="Every draw is hash(seed, stage, uid).")
    sources: list[Source] = Field(min_length=1, description="Inputs of metadata.")
    download: Download = Download()
    score: Score = Score()
    select: Select = Select()
    shards: Shards = Shards()
    instruct: Instruct = Instruct()
    engine: Engine = Engine()
    refresh: Refresh = Refresh()
    train: Train = Train()

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: list[Source]) -> list[Source]:
        names = [source.name for source in sources]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"source names must differ; {sorted(doubled)} stands more than once")
        return sources


def load_corpus(path: str | Path) -> Corpus:
    """Read `corpus.yaml`; relative paths in it become absolute, counted from its folder.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown (names the nearest) or has a wrong value.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is no corpus.yaml (limit {MAX_CONFIG_BYTES})")
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Remedy: `mmdata init DIR` writes a commented corpus.yaml.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    return parse_corpus(data, base=path.parent.resolve(), name=str(path))


def parse_corpus(data: object, base: Path | None = None, name: str = "corpus") -> Corpus:
    """Check a mapping, as YAML gives it, against the model.

    Args:
        base: folder that relative paths are counted from; None leaves them as they are.
        name: what error messages call the file.
    """
    if not isinstance(data, dict):
        raise UserError(f"{name}: expected a mapping with `workspace` and `sources`, found {type(data).__name__}")
    try:
        corpus = Corpus.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(f"{name}: {line}" for line in explain_validation(error, Corpus))) from None
    return corpus if base is None else _anchor(corpus, base)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases: a corpus.yaml needs none, and nested ones are the classic memory bomb."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not allowed here; write the value out")
        return super().compose_node(parent, index)


def _anchor(corpus: Corpus, base: Path) -> Corpus:
    def absolute(text: str) -> str:
        return text if "://" in text or Path(text).is_absolute() else str(base / text)

    sources = [s.model_copy(update={"files": absolute(s.files)}) for s in corpus.sources]
    changes: dict[str, Any] = {"workspace": absolute(corpus.workspace), "sources": sources}
    if corpus.select.balance.concepts:
        balance = corpus.select.balance.model_copy(update={"concepts": absolute(corpus.select.balance.concepts)})
        changes["select"] = corpus.select.model_copy(update={"balance": balance})
    pretrained = corpus.score.pretrained
    if pretrained and (base / pretrained).exists():  # a checkpoint beside corpus.yaml; anything else is open_clip's tag
        changes["score"] = corpus.score.model_copy(update={"pretrained": str(base / pretrained)})
    if "/" in corpus.score.model and (base / corpus.score.model).is_dir():  # a scorer that `mmdata train` made
        changes["score"] = corpus.score.model_copy(update={"model": str(base / corpus.score.model)})
    places = {key: absolute(value) for key in ("config", "output") if (value := getattr(corpus.train, key))}
    changes["train"] = corpus.train.model_copy(update=places)
    return corpus.model_copy(update=changes)


def explain_validation(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong with a configuration, a line a mistake; an unknown key comes with the nearest known one.

    Args:
        model: the root of the tree that was validated.
    """
    lines = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        if item["type"] == "extra_forbidden":
            *parents, key = item["loc"]
            known = _known_keys(model, parents)
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            hint = f"did you mean `{near[0]}`? " if near else ""
            lines.append(f"unknown key `{where}`: {hint}Known here: {', '.join(sorted(known))}.")
        else:
            text = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict | list) else f", not {item['input']!r}"
            lines.append(f"`{where}`: {text}{got}" if where else text)
    return lines


def _known_keys(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    for step in parents:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_within(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        for inner in get_args(annotation):
            if found := _model_within(inner):
                return found
    return None
