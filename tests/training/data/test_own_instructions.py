"""Own records as examples: one conversation in every form and from every place, and what breaks later is named."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.score.preprocess import Preprocess
from tests.support.made_release import flac, jpeg, tone
from tests.support.own_data import base64_of, in_chat_form, in_llava_form, in_record_form, write_lines, write_pictures
from training.data.media_tensors import MediaSpec, decode_picture
from training.data.own_instructions import OwnInstructions
from training.data.own_records import open_own_records
from training.data.records import MediaLimits
from training.data.sample_reader import BadSample
from training.data.text_codec import MEDIA_PLACEHOLDER, Turn

SPEC = MediaSpec(Preprocess(size=(16, 16)), audio_samples=1600)


def source(folder: Path, records: list[Any], limits: MediaLimits | None = None, **changed: Any) -> OwnInstructions:
    path = write_lines(folder / "own.jsonl", records)
    opened = open_own_records(path, changed.get("pictures", []), 0.0, folder / "cache", 0.0)
    return OwnInstructions(opened, "train", SPEC, limits or MediaLimits())


def test_all_forms_and_places_are_one_conversation(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "folder", 2)
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        tar.add(tmp_path / "folder" / "000.jpg", "in/tar.jpg")
    shown = ["000.jpg", "in/tar.jpg", base64_of(0), base64_of(0, "")]
    records = [in_record_form(name, second="001.jpg") for name in shown]
    records += [form([name, "001.jpg"]) for form in (in_llava_form, in_chat_form) for name in shown[:3]]
    places = [tmp_path / "folder", tmp_path / "pictures.tar"]
    own = pickle.loads(pickle.dumps(source(tmp_path, records, pictures=places)))
    asked = f"{MEDIA_PLACEHOLDER}\n{MEDIA_PLACEHOLDER}\nWhat is it?"
    pictures = torch.stack([decode_picture(jpeg(number), SPEC) for number in range(len(names))])
    for at in range(len(own)):
        example = own.read(at)
        assert example.uid == f"own.jsonl:{at + 1}"
        assert example.turns == own.turns(at) == [Turn("user", asked), Turn("assistant", "a cat")]
        assert own.texts(at) == [asked, "a cat"]
        assert example.media.pictures is not None
        assert torch.equal(example.media.pictures, pictures)
        assert example.media.counts == tuple(own.media(np.array([at]))[0])
        assert [picture.data for picture in own.encoded_media(at).pictures] == [jpeg(0), jpeg(1)]
    assert own.tokens(np.arange(len(own))).min() > 0


def test_sound_and_text_alone_are_read(tmp_path: Path) -> None:
    (tmp_path / "tone.flac").write_bytes(flac(tone(440, 0.3), 16_000))
    records = [{"instruction": "Hear?", "input_audio": "tone.flac", "output": "a tone"}, in_record_form(None)]
    own = source(tmp_path, records)
    assert own.media(np.arange(2)).tolist() == [[0, 1], [0, 0]]
    heard, read = own.read(0), own.read(1)
    assert heard.media.sound is not None
    assert heard.media.sound.abs().max() > 0.1
    assert read.media.counts == (0, 0)
    deaf = source(tmp_path, records, MediaLimits(hears=False))
    assert (len(deaf), deaf.left_out) == (1, {"own record": 1})
    assert deaf.turns(0) == read.turns


def test_records_with_more_pictures_than_fit_are_left_out(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 3)
    own = source(tmp_path, [in_llava_form(names[:count]) for count in (1, 3, 2)], MediaLimits(pictures=2))
    assert own.left_out == {"own record": 1}
    assert [example.media.counts[0] for example in map(own.read, range(len(own)))] == [1, 2]


@pytest.mark.parametrize(("data", "problem"), [(b"no picture", "undecodable"), (None, "no longer there")])
def test_a_picture_that_breaks_after_the_check_is_named(tmp_path: Path, data: bytes | None, problem: str) -> None:
    names = write_pictures(tmp_path, 2)
    own = source(tmp_path, [in_record_form(name) for name in names])
    (tmp_path / "001.jpg").unlink() if data is None else (tmp_path / "001.jpg").write_bytes(data)
    assert own.read(0).media.counts == (1, 0)
    with pytest.raises(BadSample, match=rf"own.jsonl: line 2: .*{problem}"):
        own.read(1)


def test_a_tar_is_read_without_being_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        for number in range(5):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(jpeg(number))
            tar.addfile(info, io.BytesIO(jpeg(number)))
    own = source(tmp_path, [in_record_form(f"{at}.jpg") for at in (3, 0, 4)], pictures=[tmp_path / "pictures.tar"])
    assert [own.encoded_media(at).pictures[0].data for at in range(3)] == [jpeg(3), jpeg(0), jpeg(4)]
