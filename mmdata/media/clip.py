"""A clip in the making: which frames and which sound it takes from what is decoded, and whether it became whole."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata.media.flac import SAMPLE_RATE, flac

MIN_CLIP_S = 1.0  # what is left of a clip at the end of its file is kept from this length on, or from half of it
SCENE_CHANGE = 27.0  # mean change of hue, saturation and value, as PySceneDetect's content detector has it
SCENE_PX = (64, 36)
WHOLE_SHARE = 0.9  # of a file that is taken whole must be there: its words speak of all of it
EDGE_S = 0.1  # before a clip's end, where a frame may be missing because the file ends there
SOUND_SHARE = 0.5  # of a clip that must have sound for it to be stored


@dataclass(frozen=True, slots=True)
class Look:
    """What is stored of a clip. See `mmdata.config.Clips`, `Download` and `Privacy`."""

    frames: int
    choose: str
    sound: bool
    keep_video: bool
    image_size: int
    quality: int
    blur_faces: bool = False
    min_face_score: float = 0.5
    drop_voices: bool = False
    max_speech: float = 0.05


@dataclass(frozen=True, slots=True)
class CutProblem:
    """Why a clip could not be cut: a short class, and the whole story."""

    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A clip.

    Args:
        members: extension -> bytes, in the order in which they are stored.
        times_s: of the frames, in the file.
        duration_s: of what was cut, which is shorter than asked for at the end of a file.
        audio_s: of the stored sound; None: none is.
        faces: in the frame with most; None: not looked for.
        voice: speech was found in the sound, which was therefore dropped.
    """

    members: dict[str, bytes]
    times_s: list[float]
    duration_s: float
    width: int | None
    height: int | None
    audio_s: float | None
    faces: int | None = None
    voice: bool = False


@dataclass
class _Picture:
    at: float
    data: bytes
    size: tuple[int, int]
    faces: int | None


@dataclass
class Active:
    """A clip that is being cut.

    Args:
        number: of its span.
        end_s: where it ends in the file; `asked_end_s`: where it was to end.
        is_whole: it is the whole file.
        ratio: width of a pixel over its height.
    """

    number: int
    start_s: float
    end_s: float
    asked_end_s: float
    look: Look
    kind: str
    is_whole: bool
    ratio: float = 1.0
    is_done: bool = False
    _targets: list[float] = field(init=False)
    _pictures: list[_Picture] = field(default_factory=list)
    _scenes: list[_Picture] = field(default_factory=list)
    _before: np.ndarray | None = None
    _sound: list[tuple[int, np.ndarray]] = field(default_factory=list)
    _video: Any = None

    def __post_init__(self) -> None:
        self._targets = []
        if self.kind == "video":
            span = (self.end_s - self.start_s) / self.look.frames
            self._targets = [self.start_s + (n + 0.5) * span for n in range(self.look.frames)]
        if self.kind == "video" and self.look.keep_video:
            from mmdata.media.clip_video import ClipVideo

            self._video = ClipVideo(self.start_s, self.look.image_size)

    def wants_picture_before(self, at: float) -> bool:
        """Whether it asks for a picture of a time before this one."""
        return bool(self._targets) and self._targets[0] < at

    def take_picture(self, at: float, frame: Any, before: tuple[float, Any] | None) -> None:
        """Look at a decoded frame; the one before it is what is on the screen until then."""
        while self._targets and self._targets[0] < at - 1e-6:
            self._targets.pop(0)
            shown_at, shown = before if before is not None else (at, frame)
            self._keep(shown_at, shown)
        if self._inside(at):
            if self.look.choose == "scene":
                self._note_scene(at, frame)
            if self._video is not None:
                self._video.add_picture(at, upright(frame, self.ratio))

    def last_picture(self, at: float, frame: Any, frame_s: float) -> None:
        """The file's last frame is on the screen for so many seconds."""
        while self._targets and self._targets[0] < at + frame_s:
            self._targets.pop(0)
            self._keep(at, frame)

    def take_sound(self, at: int, wave: np.ndarray) -> None:
        """Keep what of some sound lies within the clip.

        Args:
            at: sample of the file that it begins with, 16 kHz.
        """
        low = round(self.start_s * SAMPLE_RATE)
        high = round(self.end_s * SAMPLE_RATE)
        begin, end = max(low, at), min(high, at + len(wave))
        if begin < end:
            self._sound.append((begin - low, wave[begin - at : end - at]))

    def finish(self, until_s: float, duration_s: float | None) -> Cut | CutProblem:
        """The clip, or why it is none.

        Args:
            until_s: where decoding has come to.
            duration_s: what the file says of its length, once it has ended; None: it goes on.
        """
        self.is_done = True
        ended = self.end_s if duration_s is None else min(self.end_s, until_s)
        length = ended - self.start_s
        asked = self.asked_end_s - self.start_s
        if not self.is_whole and length < min(MIN_CLIP_S, asked / 2):
            short = duration_s is not None and until_s < duration_s - 1.0
            told = f"{self.start_s:.3f} to {self.asked_end_s:.3f} s, but the file ends at {until_s:.3f} s"
            return CutProblem("ended_early" if short else "past_end", told)
        if self.is_whole and duration_s is not None and until_s < WHOLE_SHARE * duration_s:
            told = f"the file is {duration_s:.3f} s long by its own word, and ends at {until_s:.3f} s"
            return CutProblem("ended_early", told)
        chosen = self._chosen()
        if self.kind == "video" and not chosen:
            return CutProblem("undecodable", f"no frame between {self.start_s:.3f} and {ended:.3f} s can be decoded")
        wave = self._wave(length)
        if self.kind == "audio" and wave is None:
            return CutProblem("no_sound", f"no sound between {self.start_s:.3f} and {ended:.3f} s")
        return self._stored(chosen, wave, length)

    def _stored(self, chosen: list[_Picture], wave: np.ndarray | None, length: float) -> Cut | CutProblem:
        members = {f"{number:03d}.jpg": one.data for number, one in enumerate(chosen)}
        voice = wave is not None and self.look.drop_voices and self._has_voice(wave)
        if voice and self.kind == "audio":
            return CutProblem("voice", "somebody speaks, and privacy.drop_voices keeps no voices")
        if voice:
            wave = None
        if wave is not None:
            members["flac"] = flac(wave)
        if self._video is not None and (data := self._video.finish(wave)) is not None:
            members["mp4"] = data
        faces = [one.faces for one in chosen if one.faces is not None]
        width, height = chosen[0].size if chosen else (None, None)
        audio_s = None if wave is None else len(wave) / SAMPLE_RATE
        duration = audio_s if self.kind == "audio" and audio_s is not None else round(length, 3)
        cut = Cut(
            members,
            [round(one.at, 6) for one in chosen],
            duration,
            width,
            height,
            audio_s,
            max(faces, default=None),
            voice,
        )
        problem = self._check(cut)
        return problem or cut

    def _check(self, cut: Cut) -> CutProblem | None:
        """Whether what was made is what was asked for."""
        held = sum(at < self.start_s for at in cut.times_s)  # one may be on the screen when the clip begins
        if held > 1 or any(at > self.end_s for at in cut.times_s) or cut.times_s != sorted(set(cut.times_s)):
            span = f"a clip from {self.start_s:.3f} to {self.end_s:.3f} s"
            return CutProblem("cut_mismatch", f"frames at {cut.times_s} of {span}")
        missing = sum(at < self.start_s + cut.duration_s - EDGE_S for at in self._targets)
        if missing:
            return CutProblem("cut_mismatch", f"the picture ends early: {missing} of {self.look.frames} frames missing")
        if cut.audio_s is not None and abs(flac_seconds(cut.members["flac"]) - cut.duration_s) > 0.002:
            return CutProblem("cut_mismatch", f"{cut.audio_s:.3f} s of sound in a clip of {cut.duration_s:.3f} s")
        return None

    def _inside(self, at: float) -> bool:
        return self.kind == "video" and self.start_s <= at < self.end_s

    def _keep(self, at: float, frame: Any) -> None:
        if not self._pictures or self._pictures[-1].at != at:  # else the clip has fewer frames than are asked for
            self._pictures.append(self._encoded(at, frame))

    def _note_scene(self, at: float, frame: Any) -> None:
        import cv2

        small = frame.reformat(width=SCENE_PX[0], height=SCENE_PX[1], format="rgb24").to_ndarray()
        signature = cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.int16)
        if self._before is not None and len(self._scenes) < self.look.frames:
            change = float(np.abs(signature - self._before).mean())
            if change > SCENE_CHANGE:
                self._scenes.append(self._encoded(at, frame))
        self._before = signature

    def _chosen(self) -> list[_Picture]:
        """The frames: evenly spaced ones, each once; where scenes change those after the changes go before them."""
        scenes = {one.at: one for one in self._scenes}
        if not scenes:
            return self._pictures
        plain = [one for one in self._pictures if one.at not in scenes]
        left = max(0, self.look.frames - len(scenes))
        spread = [plain[round(at)] for at in np.linspace(0, len(plain) - 1, min(left, len(plain)))] if plain else []
        return sorted([*scenes.values(), *spread], key=lambda one: one.at)

    def _encoded(self, at: float, frame: Any) -> _Picture:
        import cv2

        pixels = upright(frame, self.ratio, "bgr24")
        height, width = pixels.shape[:2]
        scale = self.look.image_size / min(height, width)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        faces = None
        if self.look.blur_faces:
            from mmdata.media.faces import finder

            blurred, faces = finder(self.look.min_face_score).blurred(np.ascontiguousarray(pixels[..., ::-1]))
            pixels = blurred[..., ::-1]
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, self.look.quality]
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels), jpeg)
        return _Picture(at, data.tobytes(), (pixels.shape[1], pixels.shape[0]), faces)

    def _wave(self, length: float) -> np.ndarray | None:
        """The clip's sound, silence where the track has none; None where it has hardly any."""
        if not self._sound:
            return None
        count = round(length * SAMPLE_RATE)
        samples = np.zeros(count, np.float32)
        covered = 0
        for at, wave in self._sound:
            part = samples[at : at + len(wave)]
            part[:] = wave[: len(part)]
            covered += len(part)
        return samples if covered >= SOUND_SHARE * count and count else None

    def _has_voice(self, wave: np.ndarray) -> bool:
        from mmdata.media.voice_activity import speech_ratio

        return speech_ratio(wave) > self.look.max_speech


def shown_size(frame: Any, ratio: float = 1.0) -> tuple[int, int]:
    """Width and height of a decoded frame as it is to be seen."""
    width, height = max(1, round(frame.width * ratio)), frame.height
    return (height, width) if round(frame.rotation / 90) % 2 else (width, height)


def upright(frame: Any, ratio: float = 1.0, order: str = "rgb24") -> np.ndarray:
    """A decoded frame as it is to be seen: uint8 H,W,3, turned and with square pixels.

    Args:
        ratio: width of a pixel over its height.
        order: of the colours, `rgb24` or `bgr24`.
    """
    pixels = frame.to_ndarray(format=order)
    if ratio != 1:
        import cv2

        width = max(1, round(pixels.shape[1] * ratio))
        pixels = cv2.resize(pixels, (width, pixels.shape[0]), interpolation=cv2.INTER_AREA)
    turns = round(frame.rotation / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels


def flac_seconds(data: bytes) -> float:
    """How long a FLAC file is, by its header."""
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        return float(stream.duration * stream.time_base) if stream.duration else 0.0
