"""The content of a shard is judged member by member: names, bytes, facts and places."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from mmdata.publish.archive_problems import MemberChecks, archive_problems
from mmdata.shards.facts import FACTS
from mmdata.storage.tar import END, headers, padded

KEY = "0" * 32
FACTS_OF_KEY: dict[str, Any] = {fact.name: fact.unknown for fact in FACTS} | {"uid": KEY, "signature": "text"}


def problems(members: dict[str, bytes], checks: MemberChecks | None = None) -> list[str]:
    """The problems of a shard of one sample, at the place where the index says."""
    blocks = headers(list(members), np.array([len(data) for data in members.values()], np.int64))
    content = b"".join(
        (block.tobytes() + data).ljust(padded(len(data)), b"\0")
        for block, data in zip(blocks, members.values(), strict=True)
    )
    return list(
        archive_problems("a.tar", io.BytesIO(content + END), {KEY: (0, len(content))}, checks or MemberChecks())
    )


def sample(**changes: Any) -> dict[str, bytes]:
    return {f"{KEY}.json": json.dumps(FACTS_OF_KEY | changes).encode(), f"{KEY}.txt": b"a caption"}


def test_a_sound_sample_has_no_problems() -> None:
    assert problems(sample()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"extra": {"rank": 1}}, "extra is dict, not str"),
        ({"lang": None}, "lang is NoneType, not str"),
        ({"augment": 2**64 - 1}, f"augment is {2**64 - 1}, which does not fit 64 bits"),
        ({"uid": "1" * 32}, f"its uid is {'1' * 32}"),
    ],
)
def test_facts_of_another_form_are_named_with_their_member(changes: dict[str, Any], problem: str) -> None:
    assert problems(sample(**changes)) == [f"a.tar: member {KEY}.json: {problem}"]


def test_facts_of_format_1_need_a_uid_only() -> None:
    old = sample() | {f"{KEY}.json": json.dumps({"uid": KEY, "extra": {}, "lang": None}).encode()}
    assert problems(old, MemberChecks(facts=False)) == []
    assert problems(sample(uid="1" * 32), MemberChecks(facts=False)) != []


@pytest.mark.parametrize("content", [b"[]", b"7", b"{", b"{}", b"\xff"])
def test_facts_that_are_no_object_are_a_problem_in_either_format(content: bytes) -> None:
    broken = sample() | {f"{KEY}.json": content}
    for checks in (MemberChecks(), MemberChecks(facts=False)):
        assert [line for line in problems(broken, checks) if f"{KEY}.json" in line]


def test_a_member_that_the_signature_names_and_bytes_of_another_kind_are_problems() -> None:
    assert problems(sample(signature="image+text")) == [f"a.tar: sample {KEY} is image+text, but contains no image"]
    assert problems({f"{KEY}.jpg": b"GIF89a", **sample()}) == [f"a.tar: member {KEY}.jpg: its bytes are not a jpg"]


@pytest.mark.parametrize(
    ("text", "numbers", "problem"),
    [
        ("a <image> b <image>", [0, 1], None),
        ("a <image> b", [0, 1], "has 1 markers in its text, and its pictures are numbered [0, 1]"),
        ("a <image> b <image>", [0, 2], "has 2 markers in its text, and its pictures are numbered [0, 2]"),
        ("a", [], "is document+text, but contains no document"),
    ],
)
def test_a_document_has_a_picture_for_each_marker(text: str, numbers: list[int], problem: str | None) -> None:
    pictures = {f"{KEY}.{number:03d}.jpg": b"\xff\xd8\xff" for number in numbers}
    members = {**pictures, **sample(signature="document+text"), f"{KEY}.txt": text.encode()}
    assert problems(members) == ([] if problem is None else [f"a.tar: sample {KEY} {problem}"])
