"""The tasks about clips and sound: step_caption, step_order, what_comes_next, transcribe and audio_visual_match."""

from __future__ import annotations

from typing import Any

from mmdata.instruct.asked_sample import Sample, Split, frames_of, sound_of
from mmdata.instruct.forms import Record
from mmdata.instruct.templates import YES_NO

STEPS = (3, 5)  # fewest and most clips to put in order
CLIPS_BEFORE = 4  # most clips shown by what_comes_next
FRAMES_BEFORE = 2  # frames of each of these clips
MAX_GAP_S = 30.0  # longest gap between a clip and the one after it, in seconds
MIN_SPEECH = 0.1  # least share of speech in sound to transcribe, if it was measured
TRIES = 64  # most clips examined to find the sound of another video
MAX_SILENCE = 0.9  # sound with a larger silent share is not matched


def step_caption(sample: Sample) -> Record | str:
    """Frames of a clip; the answer is its caption."""
    if not sample.is_clip:
        return "no clip"
    if not sample.caption:
        return "no caption"
    instruction = sample.ask_for_caption("step_caption")
    return sample.record("step_caption", instruction, sample.caption, input_video=frames_of(sample.row))


def step_order(sample: Sample, split: Split) -> Record | str:
    """Middle frames of several clips of a video, shuffled; the answer is their order in time.

    Each video gives one record, under the uid of its first clip. If it has more than five clips, a hash chooses five
    consecutive ones.
    """
    clips = split.videos.clips(sample.at)
    if not len(clips):
        return "no clip"
    if clips[0] != sample.at:
        return "asked with the video's first clip"
    rows = [row for at in clips if frames_of(row := split.row(int(at)))]
    if len(rows) < STEPS[0]:
        return f"fewer than {STEPS[0]} clips"
    first = (sample.bits >> 16) % (max(0, len(rows) - STEPS[1]) + 1)
    steps = rows[first : first + STEPS[1]]
    shuffled = _shuffled(len(steps), sample.bits >> 32)
    shown = tuple(frames_of(steps[step], 1)[0] for step in shuffled)
    answer = ", ".join(str(shuffled.index(step) + 1) for step in range(len(steps)))
    return sample.record("step_order", sample.ask("step_order", count=str(len(steps))), answer, input_video=shown)


def what_comes_next(sample: Sample, split: Split) -> Record | str:
    """Frames of the clips before this one; the answer is the caption of this one."""
    if not sample.is_clip:
        return "no clip"
    if not sample.caption:
        return "no caption"
    rows = [split.row(int(at)) for at in split.videos.before(sample.at, CLIPS_BEFORE)]
    if not rows:
        return "no clip before it"
    if sample.row["start_s"] - rows[-1]["end_s"] > MAX_GAP_S:
        return "too long after the clip before it"
    shown = tuple(path for row in rows for path in frames_of(row, FRAMES_BEFORE))
    if not shown:
        return "no clip before it"
    instruction = sample.ask_for_caption("what_comes_next")
    return sample.record("what_comes_next", instruction, sample.caption, input_video=shown)


def transcribe(sample: Sample) -> Record | str:
    """Sound; the answer is the words spoken in it."""
    sound = sound_of(sample.row)
    if sound is None:
        return "no sound"
    if not sample.caption:
        return "no caption"
    if not (sample.row["kind"] == "audio" or sample.row["is_told"] or sample.row["synthetic"] == "audio"):
        return "words that nobody said"
    speech = sample.row["speech_ratio"]
    if speech is not None and speech < MIN_SPEECH:
        return "no speech heard"
    return sample.record("transcribe", sample.ask("transcribe"), sample.caption, input_audio=sound)


def audio_visual_match(sample: Sample, split: Split) -> Record | str:
    """Frames of a clip with its own sound (yes) or the sound of another video (no); a hash chooses which."""
    if not sample.is_clip:
        return "no clip"
    own_sound = sound_of(sample.row)
    if own_sound is None or sample.row["synthetic"] == "audio":
        return "no sound"
    if _is_silent(sample.row):
        return "silent"
    other = _sound_of_another(sample, split)
    if other is None:
        return "no other video's sound"  # no yes either: the answer must not follow from which samples are asked
    yes, no = YES_NO[sample.lang]
    sound, answer = (own_sound, yes) if sample.bits >> 63 else (other, no)
    instruction = sample.ask("audio_visual_match")
    frames = frames_of(sample.row)
    return sample.record("audio_visual_match", instruction, answer, input_video=frames, input_audio=sound)


def _sound_of_another(sample: Sample, split: Split) -> str | None:
    """Sound of a clip of another video, chosen by hash; silent ones are skipped."""
    heard = split.videos.heard
    for step in range(min(len(heard), TRIES)):
        row = split.row(int(heard[((sample.bits >> 8) + step) % len(heard)]))
        if row["url"] != sample.row["url"] and not _is_silent(row):
            return sound_of(row)
    return None


def _is_silent(row: dict[str, Any]) -> bool:
    return row["silence_ratio"] is not None and row["silence_ratio"] > MAX_SILENCE


def _shuffled(count: int, bits: int) -> list[int]:
    """A permutation of `range(count)`, chosen by hash; never the identity."""
    left, order = list(range(count)), []
    for remaining in range(count, 0, -1):
        bits, at = divmod(bits, remaining)
        order.append(left.pop(at))
    return order if order != sorted(order) else order[1:] + order[:1]
