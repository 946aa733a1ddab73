"""Records about clips and sound: what is done, in which order, what comes next, what is said, what belongs together."""

from __future__ import annotations

from typing import Any

from mmdata.instruct.asked_sample import Sample, Split, frames_of, sound_of
from mmdata.instruct.forms import Record
from mmdata.instruct.templates import YES_NO

STEPS = (3, 5)  # clips that are put in order: at least, at most
CLIPS_BEFORE = 4  # shown by what_comes_next
FRAMES_BEFORE = 2  # of each of them
MAX_GAP_S = 30.0  # between a clip and the one that comes next
MIN_SPEECH = 0.1  # share of the sound that is speech, where that was measured: words are no transcript of a silence
TRIES = 64  # clips looked at for the sound of another video
MAX_SILENCE = 0.9  # share of the sound that is silent: nothing to match with


def step_caption(sample: Sample) -> Record | str:
    """A clip's frames, and what is done in it."""
    if not sample.is_clip:
        return "no clip"
    if not sample.caption:
        return "no caption"
    instruction = sample.ask_for_caption("step_caption")
    return sample.record("step_caption", instruction, sample.caption, input_video=frames_of(sample.row))


def step_order(sample: Sample, split: Split) -> Record | str:
    """The middle frames of several clips of a video, shuffled; one record a video, with its first clip.

    A longer video shows a run of its clips, which one by hash.
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
    """The frames of the clips so far, and what is done in the one that follows."""
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
    """Sound, and the words that are said in it."""
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
    """A clip's frames with its own sound (yes) or that of another video (no), by hash."""
    if not sample.is_clip:
        return "no clip"
    own_sound = sound_of(sample.row)
    if own_sound is None or sample.row["synthetic"] == "audio":
        return "no sound"
    if _is_silent(sample.row):
        return "silent"
    other = _sound_of_another(sample, split)
    if other is None:
        return "no other video's sound"  # nor a yes, or the answer could be told from who is asked
    yes, no = YES_NO[sample.lang]
    sound, answer = (own_sound, yes) if sample.bits >> 63 else (other, no)
    instruction = sample.ask("audio_visual_match")
    frames = frames_of(sample.row)
    return sample.record("audio_visual_match", instruction, answer, input_video=frames, input_audio=sound)


def _sound_of_another(sample: Sample, split: Split) -> str | None:
    """A clip's sound of another video, by hash; the next one that is not silent."""
    heard = split.videos.heard
    for step in range(min(len(heard), TRIES)):
        row = split.row(int(heard[((sample.bits >> 8) + step) % len(heard)]))
        if row["url"] != sample.row["url"] and not _is_silent(row):
            return sound_of(row)
    return None


def _is_silent(row: dict[str, Any]) -> bool:
    return row["silence_ratio"] is not None and row["silence_ratio"] > MAX_SILENCE


def _shuffled(count: int, bits: int) -> list[int]:
    """An order of so many things, by hash; never the one that they had."""
    left, order = list(range(count)), []
    for remaining in range(count, 0, -1):
        bits, at = divmod(bits, remaining)
        order.append(left.pop(at))
    return order if order != sorted(order) else order[1:] + order[:1]
