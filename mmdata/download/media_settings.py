"""The settings that decide what is fetched for a slice and what is stored of it. Used by the media stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mmdata.config import Clips, Corpus, Download, Privacy, Synthesis
from mmdata.config.source_filter import SourceFilter
from mmdata.engine.freshness import Reuse
from mmdata.media.clip import ClipOptions
from mmdata.optout.hashes import NO_OPT_OUT, OptOut
from mmdata.samples import own_columns


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """The settings of a slice.

    Args:
        fetch_from: template of the URLs that videos and sound are fetched from; None: from the URLs of their rows.
        opt_out: files in it are not kept.
        rules: the rows that they do not let in are not fetched.
        reuse: slice -> what it takes over from its run before; slices without a run before are missing.
    """

    download: Download
    clips: Clips
    privacy: Privacy
    synthesis: Synthesis
    seed: int
    fetch_from: str | None
    opt_out: OptOut = NO_OPT_OUT
    rules: SourceFilter | None = None
    reuse: Mapping[str, Reuse] = field(default_factory=dict)

    @classmethod
    def of(
        cls, corpus: Corpus, source_name: str, opt_out: OptOut, reuse: Mapping[str, Reuse] | None = None
    ) -> MediaSettings:
        """The settings of a corpus for the parts of one of its sources."""
        source = next((source for source in corpus.sources if source.name == source_name), None)
        fetch_from, rules = (source.fetch_from, source.filter) if source else (None, None)
        sections = (corpus.download, corpus.clips, corpus.privacy, corpus.synthesis)
        return cls(*sections, corpus.seed, fetch_from, opt_out, rules, reuse or {})

    @property
    def clip_options(self) -> ClipOptions:
        """How files are cut into clips."""
        return ClipOptions(
            frames=self.clips.frames,
            choose=self.clips.choose,
            sound=self.clips.sound,
            keep_video=self.clips.keep_video,
            image_size=self.download.image_size,
            quality=self.download.encode_quality,
            blur_faces=self.privacy.blur_faces,
            min_face_score=self.privacy.min_face_score,
            drop_voices=self.privacy.drop_voices,
            max_speech=self.privacy.max_speech,
            max_duration_s=self.clips.max_duration_s,
            max_pixels=self.download.max_pixels,
        )

    def file_url(self, row: Mapping[str, Any]) -> str | None:
        """The URL that the file of a row is fetched from; None if the row has no `video_id` that fits into a URL."""
        if self.fetch_from is None:
            return str(row["url"])
        video_id = own_columns(row["extra"]).get("video_id")
        if not isinstance(video_id, str | int) or not str(video_id).strip("."):  # dots alone name another folder
            return None
        return self.fetch_from.replace("{video_id}", quote(str(video_id), safe=""))
