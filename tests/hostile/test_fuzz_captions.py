"""Caption files by grammar: of a sound file no word is lost and no markup stays, and whatever is lost is counted."""

from __future__ import annotations

import random
import re
import time
from collections import Counter

from mmdata.config import Clips
from mmdata.sources.captions import _parse_json_entry
from mmdata.sources.subtitles import read_captions
from mmdata.sources.timed import Caption, clips_of
from tests.support.caption_grammar import CaptionFile, any_file, json_entry
from tests.support.fuzzing import draws
from tests.support.hostile_inputs import BY_GRAMMAR

SLOW_S = 5.0
MARKUP = re.compile(r"</?(font|v|c|i|b|u|lang|ruby|rt|span)\b|\{\\|&(lt|gt|amp|quot);", re.IGNORECASE)


def check_clips(captions: list[Caption], name: str) -> tuple[list[str], Counter[str]]:
    """The words of the clips, which keep their order and bounds, and the counts of what was left out."""
    clips, counts = clips_of(captions, Clips())
    end_s = 0.0
    for clip in clips:
        assert end_s <= clip.start_s < clip.end_s, name
        assert "\ufffd" not in clip.text, name
        end_s = clip.end_s
    assert sum(counts.values()) >= (bool(captions) and not clips), f"{name}: lost without a count"
    return [word for clip in clips for word in clip.text.split()], counts


def check_file(file: CaptionFile, name: str) -> str:
    parsed = read_captions(file.data, file.suffix)
    if isinstance(parsed, str):
        assert file.words is None, f"{name}: {parsed}"
        assert parsed in ("bad_captions", "bad_encoding")
        return parsed
    words, counts = check_clips(parsed, name)
    if file.words is None:
        return "read"
    assert words == file.words, name
    assert sum(counts[reason] for reason in ("bad_times", "empty")) == file.lost, name
    assert not MARKUP.search(" ".join(words)), name
    return "sound"


def test_a_file_of_captions_is_read_whole_or_with_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for name, draw in draws("caption files", BY_GRAMMAR["caption files"]):
        started_s = time.process_time()
        outcomes[check_file(any_file(draw), name)] += 1
        assert time.process_time() - started_s < SLOW_S, name
    assert outcomes["sound"] > outcomes["read"] > 0
    assert outcomes["bad_captions"]


def test_an_entry_of_the_json_is_read_or_has_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for name, draw in draws("caption entries", BY_GRAMMAR["caption entries"]):
        parsed = _parse_json_entry(json_entry(draw), None)
        if isinstance(parsed, str):
            outcomes[parsed] += 1
        else:
            outcomes["read"] += 1
            check_clips(parsed, name)
    assert outcomes["read"] > outcomes["bad_captions"] > 0


def test_the_grammar_is_a_function_of_its_name() -> None:
    assert any_file(random.Random("a")) == any_file(random.Random("a"))
