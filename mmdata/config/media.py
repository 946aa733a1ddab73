"""Sections `download`, `clips`, `privacy` and `synthesis`: how media are fetched, cut, made private or synthesised."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mmdata import __version__
from mmdata.config.section import Section

NO_CONTACT = "data set builder; complaints: the operator of this address; refusal: X-Robots-Tag: noai"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "range", "if-range", "user-agent"}
)
_SECRET_HEADER_WORDS = ("authorization", "cookie", "token", "key", "secret", "auth", "session", "password")


class Download(Section):
    """How media are fetched, and what is refused."""

    image_size: int = Field(
        256, ge=16, le=4096, description="Pixels of the shorter side after resizing; smaller pictures are not enlarged."
    )
    encode_quality: int = Field(95, ge=1, le=100, description="JPEG quality of the stored image.")
    timeout_s: float = Field(10, gt=0, description="Seconds without a byte after which a connection is closed.")
    deadline_s: float = Field(60, gt=0, description="Wall-clock seconds for one URL, redirects included.")
    max_bytes: int = Field(20_000_000, ge=1, description="Bytes of one response; a longer one is refused.")
    max_pixels: int = Field(100_000_000, ge=1, description="Pixels an image may decode to; a larger one is refused.")
    decode_timeout_s: float = Field(
        30, gt=0, description="Seconds after which the process that decodes a large or unusual picture is killed."
    )
    retries: int = Field(
        2, ge=0, le=10, description="Further attempts within one run, for faults that may be temporary."
    )
    max_attempts: int = Field(5, ge=1, description="Attempts over all runs after which a URL is not tried again.")
    retry_after_s: float = Field(
        86_400, gt=0, description="Seconds until a later run retries a URL; doubles each time."
    )
    host_pause_s: float = Field(
        3_600,
        gt=0,
        description="Seconds that a host is left alone after it has blocked us (many HTTP 429 or 503, a bot check); "
        "doubles each time, up to a day.",
    )
    threads: int = Field(32, ge=1, le=1024, description="Fetching threads in each process.")
    per_host: int = Field(8, ge=1, description="Connections open to one host at a time.")
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="Host names or networks (CIDR) that are allowed although they are not public, e.g. 127.0.0.0/8 "
        "for a local mirror.",
    )
    ports: list[int] | None = Field(
        None,
        description="Ports to connect to; null: 80, 443 and all from 1024 on. Ports of databases, mail and shells "
        "(22, 25, 3306, 6379, …) are never used; hosts in allow_hosts may use any other port.",
    )
    allow_downgrade: bool = Field(True, description="Follow a redirect from https to http; false: it is refused.")
    proxy: str | None = Field(
        None,
        repr=False,
        description="`http://host:port` of a proxy that supports CONNECT; it gets addresses that were checked. "
        "Proxies of the environment (HTTPS_PROXY, …) are not used.",
    )
    respect_robots: bool = Field(
        True, description="Honour `X-Robots-Tag: noai, noimageai, noindex, noimageindex` and `TDM-Reservation: 1`."
    )
    user_agent: str = Field(
        "mmdata",
        description="Who asks: sent as the User-Agent with `contact`; its first word is our name in X-Robots-Tag.",
    )
    contact: str | None = Field(
        None,
        description="URL or mail address for complaints, sent in the User-Agent; null: sites can only ask whom our "
        "address belongs to.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Further headers of each request to any host, e.g. `Accept` or `Referer`. Those with credentials "
        "(`Authorization`, `Cookie`, …) are not sent on to the host of a redirect.",
    )
    placeholder_urls: int | None = Field(
        10,
        ge=2,
        description="So many URLs of a slice that redirect to the same picture, with as many captions, show a "
        "placeholder; null: no picture is taken for one.",
    )
    min_success_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="A part is not accepted into releases if a smaller share of its files gave "
        "media. A file counts once, however many clips or captions it has.",
    )

    @property
    def agent(self) -> str:
        """The User-Agent: name, version, and where to complain. A name that has its own details keeps them."""
        name = f"mmdata/{__version__}" if self.user_agent == "mmdata" else self.user_agent
        if self.contact is None and self.user_agent != "mmdata":
            return name
        return f"{name} ({f'+{self.contact}' if self.contact else NO_CONTACT})"

    @staticmethod
    def is_secret_header(name: str) -> bool:
        """Whether the value of a header may be a credential."""
        return any(word in name.lower() for word in _SECRET_HEADER_WORDS)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
                raise ValueError(f"{name!r} is not a header with a value of printable ASCII")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by mmdata; set user_agent for User-Agent, leave the others out")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("a header is given twice")
        return headers

    @field_validator("user_agent", "contact")
    @classmethod
    def _is_one_line(cls, text: str | None) -> str | None:
        if text is not None and not (text.strip() and text.isascii() and text.isprintable()):
            raise ValueError("expected printable ASCII in one line")
        return text

    @field_validator("ports")
    @classmethod
    def _are_ports(cls, ports: list[int] | None) -> list[int] | None:
        if wrong := [port for port in ports or () if not 0 < port < 65536]:
            raise ValueError(f"{wrong[0]} is not a port (1 to 65535)")
        return ports

    @field_validator("proxy")
    @classmethod
    def _is_http_proxy(cls, proxy: str | None) -> str | None:
        if proxy is not None:
            parts = urlsplit(proxy)
            if parts.scheme != "http" or not parts.hostname or parts.port is None:
                raise ValueError("expected a proxy as http://host:port")
        return proxy


class Clips(Section):
    """How videos and sound are cut into clips, and which media of a clip are stored."""

    min_clip_s: float = Field(10, ge=0, description="Timed captions: neighbours are merged until a clip is this long.")
    max_clip_s: float = Field(
        30, gt=0, description="Seconds; a longer clip is split, at the bounds of captions if possible."
    )
    max_gap_s: float = Field(10, ge=0, description="Captions further apart than this are not merged into one clip.")
    frames: int = Field(8, ge=1, le=999, description="Frames to store of each clip, as JPEG of download.image_size.")
    choose: Literal["uniform", "scene"] = Field(
        "uniform", description="`uniform`: at the middles of equal spans; `scene`: one after each change of scene."
    )
    sound: bool = Field(True, description="Store a clip's sound, 16 kHz mono FLAC.")
    keep_video: bool = Field(False, description="Also store the clip itself as MP4.")
    max_duration_s: float = Field(4 * 3600, gt=0, description="A longer video or recording is refused.")
    max_bytes: int = Field(2_000_000_000, ge=1, description="Bytes of one video or recording; a longer one is refused.")
    deadline_s: float = Field(1800, gt=0, description="Wall-clock seconds for fetching one video or recording.")
    decode_timeout_s: float = Field(
        600, gt=0, description="Seconds of decoding after which the decoder of a file is killed."
    )
    threads: int = Field(4, ge=1, le=256, description="Videos and recordings fetched at a time by a process.")
    decoders: int = Field(0, ge=0, description="Decoding processes; 0: one for each core.")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Clips:
        if self.max_clip_s < self.min_clip_s:
            raise ValueError(f"max_clip_s ({self.max_clip_s:g}) is under min_clip_s ({self.min_clip_s:g})")
        return self


class Privacy(Section):
    """How people in pictures and sound are protected; docs/privacy.md has the limits."""

    count_faces: bool = Field(False, description="Count the faces of every picture and frame (feature `faces`).")
    blur_faces: bool = Field(False, description="Blur faces before anything is stored; counts them, too.")
    min_face_score: float = Field(0.5, gt=0, lt=1, description="The detector's confidence from which a face counts.")
    drop_voices: bool = Field(False, description="Do not store sound that contains speech.")
    max_speech: float = Field(
        0.05, ge=0, le=1, description="`drop_voices`: sound with a larger share of speech is dropped."
    )


class Synthesis(Section):
    """Missing modalities made by a machine; each sample says so (`synthetic`)."""

    speech: float = Field(
        0, ge=0, le=1, description="Share of the samples without sound whose caption is spoken by a synthesiser."
    )
    kinds: list[Literal["text", "image", "video"]] = Field(
        default=["text"], description="Kinds of samples that speech is made for."
    )
    synthesiser: str = Field(
        "espeak", description="`espeak` (package espeakng-loader, GPL), or your own `module:function`."
    )
