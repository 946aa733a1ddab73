"""A corpus: everything that `corpus.yaml` says."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from mmdata.config.execution import Compare, Engine, Refresh, Train
from mmdata.config.media import Clips, Download, Privacy, Synthesis
from mmdata.config.observe import Alerts, Observe
from mmdata.config.publishing import Instruct, Releases, Shards
from mmdata.config.recaption import Recaption
from mmdata.config.score import Score
from mmdata.config.section import RelativePath, Section
from mmdata.config.select import Select
from mmdata.config.select_scores import MEASURES, check_score_names
from mmdata.config.source import OptOutList, Source


class Corpus(Section):
    """A corpus: everything that `corpus.yaml` says."""

    workspace: RelativePath = Field(
        description="Where all data lies: a folder, relative to corpus.yaml, or s3://bucket/prefix."
    )
    seed: int = Field(0, description="Seed of all draws: a draw is hash(seed, stage, uid).")
    sources: list[Source] = Field(min_length=1, description="Inputs of metadata.")
    optout: list[OptOutList] = Field(
        default_factory=list,
        description="Lists of URLs, domains or files that are never fetched and never released: paths, or `{path: "
        "…, column: …}`.",
    )
    download: Download = Download()
    clips: Clips = Clips()
    privacy: Privacy = Privacy()
    synthesis: Synthesis = Synthesis()
    score: Score = Score()
    recaption: Recaption = Recaption()
    select: Select = Select()
    shards: Shards = Shards()
    instruct: Instruct = Instruct()
    releases: Releases = Releases()
    engine: Engine = Engine()
    refresh: Refresh = Refresh()
    train: Train = Train()
    compare: Compare = Compare()
    observe: Observe = Observe()
    alerts: Alerts = Alerts()

    @model_validator(mode="after")
    def _rules_have_measures(self) -> Corpus:
        rules = self.select.filter
        if rules.max_faces is not None and not (self.privacy.count_faces or self.privacy.blur_faces):
            raise ValueError("select.filter.max_faces needs privacy.count_faces: true, which counts the faces")
        if rules.min_audio_score is not None and self.score.audio_model is None:
            raise ValueError("select.filter.min_audio_score needs score.audio_model, which gives the scores")
        if self.select.needs_text_embeddings and not self.score.text_embeddings:
            raise ValueError("the scores in section select need score.text_embeddings: true, which keeps the vectors")
        agreement = (rules.min_agreement, rules.max_agreement)
        if any(bound is not None for bound in agreement) and not self.recaption.is_on:
            raise ValueError("select.filter: min_agreement and max_agreement need recaption.model, to agree with")
        if self.select.needs_text_embeddings and self.recaption.replaces:
            raise ValueError(
                "a score in section select reads the vectors of the source's own captions, and recaption.use replaces "
                "some of these captions. Remedy: recaption.use: keep_both, or another score"
            )
        if taken := sorted(set(self.select.scores) & set(self.score.further_scores)):
            raise ValueError(f"select.scores.{taken[0]}: section score computes a score of this name; choose another")
        known = {*self.select.scores, *MEASURES, *self.score.further_scores}
        check_score_names(self.select.used_scores, known)
        if "audio_score" in self.select.used_scores and self.score.audio_model is None:
            raise ValueError("the score audio_score in section select needs score.audio_model, which gives the scores")
        return self

    @model_validator(mode="after")
    def _max_punsafe_bounds_nsfw(self) -> Corpus:
        rules = self.select.filter
        if self.score.nsfw and rules.max_punsafe is not None:
            rules.max_scores.setdefault("nsfw", rules.max_punsafe)
        return self

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: list[Source]) -> list[Source]:
        names = [source.name for source in sources]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"source names must differ; {sorted(repeated)} appears more than once")
        return sources
