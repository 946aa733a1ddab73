"""Media: how it is fetched, cut, made private or made up."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import Section


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
    ports: list[int] | None = Field(
        None,
        description="Ports that are asked; null: 80, 443 and all from 1024 on. Those of databases, mail, shells and "
        "the like (22, 25, 3306, 6379, …) never are; hosts in allow_hosts may use any other port.",
    )
    allow_downgrade: bool = Field(True, description="Follow a redirect from https to http; false: it is refused.")
    proxy: str | None = Field(
        None,
        description="`http://host:port` of a proxy that knows CONNECT; it is given addresses that were checked. Those "
        "of the environment (HTTPS_PROXY, …) are not used.",
    )
    respect_robots: bool = Field(True, description="Honour `X-Robots-Tag: noai, noimageai, noindex, noimageindex`.")
    user_agent: str = Field("mmdata", description="Sent as the User-Agent, and matched against X-Robots-Tag.")
    min_success_share: float = Field(
        0.1, ge=0, le=1, description="A part with a smaller share of fetched rows is not accepted into releases."
    )

    @field_validator("ports")
    @classmethod
    def _are_ports(cls, ports: list[int] | None) -> list[int] | None:
        if wrong := [port for port in ports or () if not 0 < port < 65536]:
            raise ValueError(f"{wrong[0]} is no port")
        return ports

    @field_validator("proxy")
    @classmethod
    def _is_http_proxy(cls, proxy: str | None) -> str | None:
        if proxy is not None:
            parts = urlsplit(proxy)
            if parts.scheme != "http" or not parts.hostname or parts.port is None:
                raise ValueError("a proxy is http://host:port")
        return proxy


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
