"""Captions that trained models made for held-out pictures, as `mmdata evaluate` wrote them into metrics.json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from upath import UPath

from mmdata.observe import logs
from mmdata.storage.atomic import is_local

_log = logs.logger(__name__)

MAX_IN_REPORT = 12  # pictures of one model
MAX_MODELS = 4  # in a report
CAPTIONS_PAGE = "captions.html"


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A held-out picture and what was said about it."""

    uid: str
    image: str | None  # data URI of a small JPEG; None: not readable
    expected: str  # the sample's own caption
    generated: str
    with_other_picture: str | None  # the caption made from another sample's picture
    concept: str | None  # of the sample
    names_concept: bool | None  # whether the generated caption names it; None: the sample's own caption does not


@dataclass(frozen=True, slots=True)
class ModelCaptions:
    """The captions of a model of stage `joint`.

    Args:
        name: of the folder of its models.
        facts: names and values of its measures, as text.
        answers: of metrics.json, in the order of the held-out split.
        page: its page of captions; None if there is none.
    """

    name: str
    step: int
    facts: Sequence[tuple[str, str]]
    answers: Sequence[Mapping[str, Any]]
    page: Path | None

    @property
    def uids(self) -> list[str]:
        """The samples that may be shown; twice as many as are shown, because some have no picture."""
        return [str(answer["uid"]) for answer in self.answers[: 2 * MAX_IN_REPORT]]

    def pictures(self, images: Mapping[str, str | None]) -> list[CaptionedPicture]:
        """The captions of the first samples that have a picture; `images` is uid -> data URI."""
        answers = {str(answer["uid"]): answer for answer in self.answers}
        shown = [uid for uid in self.uids if images.get(uid) is not None]
        return [captioned_picture(answers[uid], images[uid]) for uid in shown[:MAX_IN_REPORT]]

    def link(self, folder: UPath) -> str | None:
        """The address of the page as seen from a page in a folder; None if one of them is not on this machine."""
        if self.page is None or not is_local(folder):
            return None
        return quote(Path(os.path.relpath(self.page, folder.path)).as_posix())


def read_captions(models: Sequence[Path], release_id: str) -> list[ModelCaptions]:
    """The captions of the models in some folders that were evaluated on a release; at most `MAX_MODELS`.

    Args:
        models: folders with a subfolder for each stage.
    """
    captions = []
    for folder in sorted({folder.resolve() for folder in models}):
        stage = folder / "joint"
        try:
            evaluation = json.loads((stage / "metrics.json").read_text(encoding="utf-8"))
            if evaluation["release_id"] != release_id or not evaluation["answers"]:
                continue
            facts = caption_facts(evaluation["metrics"])
            page = stage / CAPTIONS_PAGE
            model_captions = ModelCaptions(
                folder.name, int(evaluation["step"]), facts, evaluation["answers"], page if page.exists() else None
            )
        except FileNotFoundError:
            continue  # not evaluated
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("an evaluation cannot be read; `mmdata evaluate` makes it anew", folder=str(stage), why=error)
            continue
        captions.append(model_captions)
    return captions[:MAX_MODELS]


def captioned_picture(answer: Mapping[str, Any], image: str | None) -> CaptionedPicture:
    """A caption of metrics.json with its picture, and whether it names the concept that the sample's own one names."""
    concept = answer.get("concept")
    is_named = None
    if concept is not None and names_concept(answer["expected"], concept):
        is_named = names_concept(answer["generated"], concept)
    return CaptionedPicture(
        uid=answer["uid"],
        image=image,
        expected=answer["expected"],
        generated=answer["generated"],
        with_other_picture=answer.get("with_other_picture"),
        concept=concept,
        names_concept=is_named,
    )


def names_concept(caption: str, concept: str) -> bool:
    """Whether a caption holds the name of a concept as whole words, in any case."""
    words = re.escape(concept.strip())
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", caption, re.IGNORECASE) is not None


def caption_facts(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """What a page says above captions: the shares that name their concept, and the losses, with other pictures too."""
    shares = {
        "concept_named": "name the concept",
        "concept_named_with_other_pictures": "name it when shown another sample's picture",
    }
    losses = {"loss": "loss", "loss_with_other_pictures": "loss with other samples' pictures"}
    facts = [(words, f"{metrics[name]:.0%}") for name, words in shares.items() if name in metrics]
    return facts + [(words, f"{metrics[name]:.3f}") for name, words in losses.items() if name in metrics]
