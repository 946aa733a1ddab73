"""One typed tree describes a corpus: what `corpus.yaml` may say, its defaults, and what each key means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SOURCE_KINDS = Literal["laion", "pairs", "video", "audio", "text", "howto100m"]

COLUMNS_OF_KIND: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "pairs": (frozenset({"url", "caption"}), frozenset({"lang", "expected_sha256"})),
    "video": (frozenset({"url", "caption"}), frozenset({"lang", "expected_sha256", "start_s", "end_s"})),
    "audio": (frozenset({"url"}), frozenset({"caption", "lang", "expected_sha256", "start_s", "end_s"})),
    "text": (frozenset({"caption"}), frozenset({"lang"})),
}
"""Kinds that take a mapping of columns: those they need, and those they may name."""

PART_AND_SLICE_ROWS = {"howto100m": (2_000, 200), "video": (20_000, 1_000), "audio": (20_000, 2_000)}
"""Kind -> defaults of part_rows and slice_rows, where a row is more work than a picture; else (200,000, 10,000)."""


class Source(Section):
    """One input of metadata: which files, and how their columns are read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Names the parts: `web` gives `web-000000`.")
    kind: SOURCE_KINDS = Field(
        description="`laion` reads LAION-5B, LAION-400M and DataComp columns as they are, `howto100m` the index of "
        "HowTo100M; `pairs` (pictures), `video`, `audio` and `text` take a mapping."
    )
    files: str = Field(description="Glob of the metadata files, relative to corpus.yaml, or a URL such as s3://…")
    part_rows: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        description="Rows a part: what a person retries. `howto100m`: 2000 videos; `video`, `audio`: 20000.",
    )
    slice_rows: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Rows a slice: what a worker does. `howto100m`: 200 videos; `video`: 1000; `audio`: 2000.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="`pairs`, `video`, `audio`, `text`: our name -> the file's column. Names: url, caption, lang, "
        "expected_sha256, and start_s, end_s (seconds) where a row is a clip of a longer file.",
    )
    captions: str | None = Field(
        None,
        description="`howto100m`: the timed captions, `raw_caption.json`, or one file a video such as "
        "captions/{video_id}.csv (also .vtt, .srt); relative to corpus.yaml, or a URL.",
    )
    fetch_from: str | None = Field(
        None,
        description="Where files are fetched from, if not from their URL: a template such as "
        "https://mirror.example/{video_id}.mp4. The sample's identity stays its URL.",
    )

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") in PART_AND_SLICE_ROWS:
            part_rows, slice_rows = PART_AND_SLICE_ROWS[data["kind"]]
            return {"part_rows": part_rows, "slice_rows": slice_rows, **data}
        return data

    @model_validator(mode="after")
    def _mapping_is_complete(self) -> Source:
        if self.kind not in COLUMNS_OF_KIND:
            if self.columns:
                raise ValueError(
                    f"`columns` is for kinds {', '.join(COLUMNS_OF_KIND)}; `{self.kind}` knows its columns"
                )
        else:
            needed, may = COLUMNS_OF_KIND[self.kind]
            if not needed <= set(self.columns):
                wanted = ", ".join(f"{name}: <column>" for name in sorted(needed, reverse=True))
                raise ValueError(f"a `{self.kind}` source needs columns: {{{wanted}}}")
            if unknown := set(self.columns) - needed - may:
                raise ValueError(f"columns: {sorted(unknown)} not known; the names are {sorted(needed | may)}")
            if len({"start_s", "end_s"} & set(self.columns)) == 1:
                raise ValueError("columns: start_s and end_s go together")
        if (self.captions is None) == (self.kind == "howto100m"):
            told = "needs `captions`" if self.captions is None else "takes no `captions`; kind `howto100m` does"
            raise ValueError(f"a `{self.kind}` source {told}")
        if self.fetch_from is not None and "{video_id}" not in self.fetch_from:
            raise ValueError("fetch_from: has no {video_id} in it, so every file would be the same one")
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


class Clips(Section):
    """How videos and sound are cut into clips, and what of a clip is stored."""

    min_clip_s: float = Field(10, ge=0, description="Timed captions: neighbours are merged until a clip is this long.")
    max_clip_s: float = Field(30, gt=0, description="Seconds; a longer clip is split, at caption bounds if it can be.")
    max_gap_s: float = Field(10, ge=0, description="Captions further apart than this are not merged into one clip.")
    frames: int = Field(8, ge=1, le=999, description="Frames stored of a clip, as JPEG of download.image_size.")
    choose: Literal["uniform", "scene"] = Field(
        "uniform", description="`uniform`: at the middles of equal spans; `scene`: one after each change of scene."
    )
    sound: bool = Field(True, description="Store a clip's sound, 16 kHz mono FLAC.")
    keep_video: bool = Field(False, description="Also store the clip itself as MP4.")
    max_duration_s: float = Field(4 * 3600, gt=0, description="A longer video or recording is refused.")
    max_bytes: int = Field(2_000_000_000, ge=1, description="Bytes of one video or recording; a longer one is refused.")
    deadline_s: float = Field(1800, gt=0, description="Wall-clock seconds for fetching one video or recording.")
    decode_timeout_s: float = Field(600, gt=0, description="Seconds of decoding after which a file's worker is killed.")
    threads: int = Field(4, ge=1, le=256, description="Videos and recordings fetched at a time by a process.")
    decoders: int = Field(0, ge=0, description="Decoding processes; 0 means one a core.")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Clips:
        if self.max_clip_s < self.min_clip_s:
            raise ValueError(f"max_clip_s ({self.max_clip_s:g}) is under min_clip_s ({self.min_clip_s:g})")
        return self


class Privacy(Section):
    """What is done about people in pictures and sound; docs/privacy.md says what is not."""

    count_faces: bool = Field(False, description="Count the faces of every picture and frame (feature `faces`).")
    blur_faces: bool = Field(False, description="Blur faces before anything is stored; counts them, too.")
    min_face_score: float = Field(0.5, gt=0, lt=1, description="The detector's confidence from which a face counts.")
    drop_voices: bool = Field(False, description="Store no sound in which speech is found.")
    max_speech: float = Field(0.05, ge=0, le=1, description="`drop_voices`: share of speech above which sound goes.")


class Synthesis(Section):
    """Missing modalities made by a machine; each sample says so (`synthetic`)."""

    speech: float = Field(0, ge=0, le=1, description="Share of the samples without sound whose caption is spoken.")
    kinds: list[Literal["text", "image", "video"]] = Field(
        default=["text"], description="Kinds of samples that speech is made for."
    )
    synthesiser: str = Field(
        "espeak", description="`espeak` (package espeakng-loader, GPL), or `module:function` of your own."
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
    audio_model: str | None = Field(
        None, description="A CLAP model of transformers (folder or hub id) that scores sound against captions."
    )
    transcriber: str | None = Field(
        None, description="A speech-to-text model of transformers (Whisper's kind) for sound without text."
    )

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
    max_faces: int | None = Field(None, ge=0, description="Faces in a picture, or in the frame of a clip with most.")
    min_audio_score: float | None = Field(None, ge=-1, le=1, description="Sound-text cosine of score.audio_model.")
    min_speech: float | None = Field(None, ge=0, le=1, description="Share of the sound that is speech.")
    max_speech: float | None = Field(None, ge=0, le=1, description="Share of the sound that is speech.")
    min_overlap: float | None = Field(
        None, ge=0, le=1, description="Share of the captioned time of a clip in which somebody speaks."
    )
    max_silence: float | None = Field(None, ge=0, le=1, description="Share of the sound that is silent.")
    min_loudness_db: float | None = Field(None, le=0, description="Loudness of the sound, dB of full scale.")
    max_black: float | None = Field(None, ge=0, le=1, description="Share of a clip's frames that are black.")
    max_frozen: float | None = Field(
        None, ge=0, le=1, description="Share of a clip's frames that equal the one before."
    )
    min_seconds: float | None = Field(None, ge=0, description="Length of a clip or of sound.")
    max_seconds: float | None = Field(None, gt=0, description="Length of a clip or of sound.")

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
    concept_kinds: list[Literal["image", "video", "audio", "text"]] = Field(
        default=["image"], min_length=1, description="Kinds of samples that are thinned by concepts."
    )
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
    signatures: bool = Field(
        True, description="A rare combination of modalities counts as rare, too: below `threshold` it is repeated."
    )


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


TASKS = Literal[
    "caption",
    "detailed_caption",
    "match",
    "reference_image",
    "text_qa",
    "text_to_image",
    "step_caption",
    "step_order",
    "what_comes_next",
    "transcribe",
    "audio_visual_match",
]


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
    wait_s: float = Field(
        3600, ge=0, description="Seconds to wait for another build that works on the same part; 0: say who it is."
    )

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
    clips: Clips = Clips()
    privacy: Privacy = Privacy()
    synthesis: Synthesis = Synthesis()
    score: Score = Score()
    select: Select = Select()
    shards: Shards = Shards()
    instruct: Instruct = Instruct()
    engine: Engine = Engine()
    refresh: Refresh = Refresh()
    train: Train = Train()

    @model_validator(mode="after")
    def _rules_have_measures(self) -> Corpus:
        asked = self.select.filter
        if asked.max_faces is not None and not (self.privacy.count_faces or self.privacy.blur_faces):
            raise ValueError("select.filter.max_faces needs privacy.count_faces: true, or no sample would have a count")
        if asked.min_audio_score is not None and self.score.audio_model is None:
            raise ValueError("select.filter.min_audio_score needs score.audio_model, or no sample would have a score")
        return self

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: list[Source]) -> list[Source]:
        names = [source.name for source in sources]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"source names must differ; {sorted(doubled)} stands more than once")
        return sources
