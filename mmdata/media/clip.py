"""Builds one clip from decoded frames and sound: chooses its frames, gathers its sound and checks the result.

`mmdata.media.cutting` decodes the file and feeds every clip that a frame or a piece of sound belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from mmdata.media.downmix import audible
from mmdata.media.flac import SAMPLE_RATE, flac, flac_seconds
from mmdata.media.timeline import Timeline
from mmdata.media.video_frames import Picture, encode_picture, scene_signature, upright_pixels

MIN_CLIP_S = 1.0  # a clip that the end of its file shortens is kept if so much, or half of the clip, is left
MIN_SCENE_CHANGE = 27.0  # a larger mean change of hue, saturation and value begins a scene, as in PySceneDetect
MIN_DECODED_SHARE = 0.9  # of a whole recording: its transcript has all its words, so little may be missing
MAX_MISSING_END_S = 0.1  # frames so close to a clip's end may be missing, because the file may end there
HELD_S = 0.2  # a frame that is on the screen for longer is shown once more at the end of a film
FILM_TAIL_S = 0.04  # before the end of the film
MIN_SOUND_SHARE = 0.5  # if a smaller share of a clip has sound, no sound is stored


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """What a file may be and what is stored of its clips. See `mmdata.config.Clips`, `Download` and `Privacy`."""

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
    max_duration_s: float = 3600.0
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class CutProblem:
    """Why a clip could not be cut: a short class to count by, and the full message."""

    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A clip.

    Args:
        members: extension -> bytes, in the order in which they are stored.
        times_s: of the frames, in the file.
        duration_s: of the clip, which is shorter than asked for if the file ends within it.
        audio_s: length of the stored sound; None if no sound is stored.
        faces: in the frame with most faces; None if faces were not searched for.
        voice: speech was found in the sound, which was dropped for that reason.
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
class ClipBuilder:
    """A clip that is being cut. It is fed in the order of the file: `take_picture`, `take_sound`, then `finish`.

    Args:
        number: of its span in the request.
        end_s: where it ends in the file.
        requested_end_s: where it was asked to end; later than `end_s` if the file ends before.
        is_whole: the clip is the whole file.
        timeline: of the file.
        pixel_ratio: width of a pixel over its height.
    """

    number: int
    start_s: float
    end_s: float
    requested_end_s: float
    options: ClipOptions
    kind: str
    is_whole: bool
    timeline: Timeline
    pixel_ratio: float = 1.0
    _target_times: list[float] = field(init=False)  # of the frames that are still to be taken, evenly spaced
    _problems: list[tuple[float, CutProblem]] = field(default_factory=list)  # times without a frame to show, and why
    _pictures: list[Picture] = field(default_factory=list)
    _scene_pictures: list[Picture] = field(default_factory=list)  # the first frame after each change of scene
    _last_signature: np.ndarray | None = None
    _sound: list[tuple[int, np.ndarray]] = field(default_factory=list)  # first sample within the clip, mixes
    _video: Any = None

    def __post_init__(self) -> None:
        self._target_times = []
        if self.kind == "video":
            step_s = (self.end_s - self.start_s) / self.options.frames
            self._target_times = [self.start_s + (n + 0.5) * step_s for n in range(self.options.frames)]
        if self.kind == "video" and self.options.keep_video:
            from mmdata.media.clip_video import ClipVideo

            self._video = ClipVideo(self.start_s, self.options.image_size)

    def needs_time_before(self, time_s: float) -> bool:
        """Whether the clip needs a frame that is shown before this time, or a recording's sound before it."""
        if self.kind == "video":
            return bool(self._target_times) and self._target_times[0] < time_s
        return self.start_s < time_s

    def take_picture(self, time_s: float, frame: Any, previous: tuple[float, Any] | None) -> None:
        """Take what the clip needs of a decoded frame.

        Args:
            previous: time and frame before this one. It is on the screen until this one is.
        """
        while self._target_times and self._target_times[0] < time_s - 1e-6:
            self._take_target(*(previous if previous is not None else (time_s, frame)))
        if self.options.choose == "scene" and self.start_s <= time_s < self.end_s:
            self._note_scene(time_s, frame)
        if self._video is not None:
            self._hold_in_film(previous, time_s)
            if self.start_s <= time_s < self.end_s:
                self._add_to_film(time_s, frame)

    def take_last_picture(self, time_s: float, frame: Any) -> None:
        """Take what the clip needs of the file's last frame, which stays on the screen."""
        while self._target_times:
            self._take_target(time_s, frame)
        if self._video is not None:
            self._hold_in_film((time_s, frame), inf)

    def _hold_in_film(self, previous: tuple[float, Any] | None, until_s: float) -> None:
        """Begin and end the film with the frame that is on the screen then, if it is older."""
        if previous is None:
            return
        if previous[0] < self.start_s < until_s - 0.001:
            self._add_to_film(self.start_s, previous[1])
        last_s = self.end_s - FILM_TAIL_S
        if max(previous[0] + HELD_S, self.start_s) < last_s < until_s:
            self._add_to_film(last_s, previous[1])

    def _add_to_film(self, time_s: float, frame: Any) -> None:
        self._video.add_picture(time_s, upright_pixels(frame, self.pixel_ratio, self.options.image_size))

    def _take_target(self, time_s: float, frame: Any) -> None:
        """Keep the frame that is on the screen at the next of the times, or note why it is not the right one."""
        target_s = self._target_times.pop(0)
        if (hole := self.timeline.hole_at(target_s)) is not None:
            detail = f"the file has neither picture nor sound from {hole[0]:.3f} to {hole[1]:.3f} s"
            self._problems.append((target_s, CutProblem("gap", detail)))
        elif not self.timeline.is_shown(time_s, target_s):
            detail = f"the picture at {target_s:.3f} s cannot be decoded, the last one before is of {time_s:.3f} s"
            self._problems.append((target_s, CutProblem("undecodable", detail)))
        else:
            self._keep(time_s, frame)

    def take_sound(self, first_sample: int, mixes: np.ndarray) -> None:
        """Keep the part of a piece of sound that lies within the clip.

        Args:
            first_sample: where the piece begins in the file, in samples at 16 kHz.
            mixes: float32 1,N or 2,N at 16 kHz, see `mmdata.media.downmix.mix`.
        """
        clip_begin = round(self.start_s * SAMPLE_RATE)
        clip_end = round(self.end_s * SAMPLE_RATE)
        begin, end = max(clip_begin, first_sample), min(clip_end, first_sample + mixes.shape[1])
        if begin < end:
            self._sound.append((begin - clip_begin, mixes[:, begin - first_sample : end - first_sample]))

    def finish(self, decoded_until_s: float, promised_s: float | None) -> Cut | CutProblem:
        """The clip, or why there is none.

        Args:
            decoded_until_s: the time in the file up to which it is decoded.
            promised_s: the length that the file claims, if the file has ended; None if it continues.
        """
        end_s = self.end_s if promised_s is None else min(self.end_s, decoded_until_s)
        length_s = end_s - self.start_s
        requested_s = self.requested_end_s - self.start_s
        if length_s < min(MIN_CLIP_S, requested_s / 2):
            is_file_short = promised_s is not None and decoded_until_s < promised_s - 1.0
            span = f"{self.start_s:.3f} to {self.requested_end_s:.3f} s"
            detail = f"{span}, but the file ends at {decoded_until_s:.3f} s"
            return CutProblem("ended_early" if is_file_short else "past_end", detail)
        # a transcript speaks of all that is heard, while what is left of a film fits its caption
        is_whole_recording = self.is_whole and self.kind == "audio"
        if is_whole_recording and promised_s is not None and decoded_until_s < MIN_DECODED_SHARE * promised_s:
            claim = "goes on" if promised_s == inf else f"claims to be {promised_s:.3f} s long"
            detail = f"the file {claim}, but nothing can be read behind {decoded_until_s:.3f} s"
            return CutProblem("ended_early", detail)
        for time_s, problem in self._problems:
            if time_s < end_s:
                return problem
        pictures = self._chosen_pictures()
        if self.kind == "video" and not pictures:
            return CutProblem("undecodable", f"no frame between {self.start_s:.3f} and {end_s:.3f} s can be decoded")
        wave = self._wave(length_s)
        if self.kind == "audio" and wave is None:
            return CutProblem("no_sound", f"no sound between {self.start_s:.3f} and {end_s:.3f} s")
        return self._assembled(pictures, wave, length_s)

    def _assembled(self, pictures: list[Picture], wave: np.ndarray | None, length_s: float) -> Cut | CutProblem:
        """The clip with its members in their order: frames, sound, video."""
        members = {f"{number:03d}.jpg": picture.data for number, picture in enumerate(pictures)}
        has_voice = wave is not None and self.options.drop_voices and self._has_voice(wave)
        if has_voice and self.kind == "audio":
            return CutProblem("voice", "somebody speaks, and privacy.drop_voices keeps no voices")
        if has_voice:
            wave = None
        if wave is not None:
            members["flac"] = flac(wave)
        if self._video is not None and (data := self._video.finish(wave)) is not None:
            members["mp4"] = data
        face_counts = [picture.faces for picture in pictures if picture.faces is not None]
        width, height = pictures[0].size if pictures else (None, None)
        audio_s = None if wave is None else len(wave) / SAMPLE_RATE
        cut = Cut(
            members,
            times_s=[round(picture.time_s, 6) for picture in pictures],
            duration_s=audio_s if self.kind == "audio" and audio_s is not None else round(length_s, 3),
            width=width,
            height=height,
            audio_s=audio_s,
            faces=max(face_counts, default=None),
            voice=has_voice,
        )
        return self._mismatch(cut) or cut

    def _mismatch(self, cut: Cut) -> CutProblem | None:
        """How the result differs from what was asked for; None if it does not. A wrong clip is never stored."""
        frames_before = sum(time_s < self.start_s for time_s in cut.times_s)
        # one frame may be older than the clip: the one that is on the screen when the clip begins
        is_outside = frames_before > 1 or any(time_s > self.end_s for time_s in cut.times_s)
        if is_outside or cut.times_s != sorted(set(cut.times_s)):
            span = f"a clip from {self.start_s:.3f} to {self.end_s:.3f} s"
            return CutProblem("cut_mismatch", f"frames at {cut.times_s} of {span}")
        missing = sum(time_s < self.start_s + cut.duration_s - MAX_MISSING_END_S for time_s in self._target_times)
        if missing:
            detail = f"the picture ends early: {missing} of {self.options.frames} frames are missing"
            return CutProblem("cut_mismatch", detail)
        if cut.audio_s is not None and abs(flac_seconds(cut.members["flac"]) - cut.duration_s) > 0.002:
            return CutProblem("cut_mismatch", f"{cut.audio_s:.3f} s of sound in a clip of {cut.duration_s:.3f} s")
        return None

    def _keep(self, time_s: float, frame: Any) -> None:
        # two target times fall on the same frame if the clip has fewer frames than are asked for: it is kept once
        if not self._pictures or self._pictures[-1].time_s != time_s:
            self._pictures.append(encode_picture(time_s, frame, self.pixel_ratio, self.options))

    def _note_scene(self, time_s: float, frame: Any) -> None:
        signature = scene_signature(frame)
        if self._last_signature is not None and len(self._scene_pictures) < self.options.frames:
            change = float(np.abs(signature - self._last_signature).mean())
            if change > MIN_SCENE_CHANGE:
                self._scene_pictures.append(encode_picture(time_s, frame, self.pixel_ratio, self.options))
        self._last_signature = signature

    def _chosen_pictures(self) -> list[Picture]:
        """The frames to store, in order: those after changes of scene, and evenly spaced ones in the places left."""
        scenes = {picture.time_s: picture for picture in self._scene_pictures}  # frames of equal time count once
        if not scenes:
            return self._pictures
        others = [picture for picture in self._pictures if picture.time_s not in scenes]
        count = min(max(0, self.options.frames - len(scenes)), len(others))
        spread = [others[round(position)] for position in np.linspace(0, len(others) - 1, count)] if others else []
        return sorted([*scenes.values(), *spread], key=lambda picture: picture.time_s)

    def _wave(self, length_s: float) -> np.ndarray | None:
        """The clip's sound, with silence where the track has gaps; None if the track covers too little of the clip."""
        if not self._sound:
            return None
        count = round(length_s * SAMPLE_RATE)
        samples = np.zeros((max(len(mixes) for _, mixes in self._sound), count), np.float32)
        is_heard = np.zeros(count, np.bool_)
        for first_sample, mixes in self._sound:
            part = samples[:, first_sample : first_sample + mixes.shape[1]]
            part[:] = mixes[:, : part.shape[1]]  # the one mix of a mono piece is both mixes
            is_heard[first_sample : first_sample + mixes.shape[1]] = True
        return audible(samples) if count and is_heard.mean() >= MIN_SOUND_SHARE else None

    def _has_voice(self, wave: np.ndarray) -> bool:
        from mmdata.media.voice_activity import speech_ratio

        return speech_ratio(wave) > self.options.max_speech
