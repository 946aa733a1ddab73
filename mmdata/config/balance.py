"""How a release is balanced: which mix of modalities and concepts it has, and how often a sample is repeated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mmdata.config.section import RelativePath, Section

_OF_CONCEPTS = {"concepts_by", "concepts_top_k", "concepts_ignore_case"}


class Balance(Section):
    """Which mix of modalities and concepts a release has. Scarce samples are repeated before common ones are thinned.

    Samples are repeated up to `select.oversample.max_repeats` times.
    """

    alpha: float | None = Field(
        0.7,
        ge=0,
        le=1,
        description="The share of a signature is in proportion to count^alpha (temperature sampling, as in mT5): 1 "
        "leaves the mix as it is, 0 makes all equal. Scarce signatures are repeated; nothing is thinned unless `size` "
        "is set. null: only `max_ratio`.",
    )
    mix: dict[str, float] | None = Field(
        None,
        description="Instead of alpha: signature -> share, e.g. {image+text: 0.7, …}. Scarce signatures are repeated "
        "first, then common ones are thinned up to `max_loss`. A signature that is not named is left out.",
    )
    size: int | None = Field(
        None,
        ge=1,
        description="How much is left after balance, copies included, as `by` counts it; null: what alpha or mix "
        "needs. Repeats of rare concepts (`select.oversample`) come on top.",
    )
    max_loss: float = Field(
        0.2,
        ge=0,
        le=1,
        description="A mix without a size thins at most this share of the samples that it names; what is then still "
        "short is reported. 1: thin as much as the mix takes.",
    )
    by: Literal["samples", "tokens", "seconds"] = Field("samples", description="What mix, alpha and size count.")
    max_ratio: float | None = Field(
        None,
        ge=1,
        description="The rule of version 0.1, instead of alpha: the largest signature divided by the smallest. It only "
        "thins: 9,000 samples beside 150 become 450 by a ratio of 3. `max_ratio: null` in corpus.yaml turns alpha off, "
        "as it turned balance off in 0.1.",
    )
    tail_share: float = Field(
        0.01, ge=0, lt=1, description="A signature below this share does not set the cap of max_ratio."
    )
    concepts: RelativePath | dict[str, RelativePath] | None = Field(
        None,
        description="A concept list: one a line, or JSON as MetaCLIP publishes it (a list, or an object of texts and "
        "counts); or language -> list, as MetaCLIP 2 has it, with `other` for all other languages; null: no concept "
        "balance.",
    )
    concepts_by: Literal["text", "embedding"] = Field(
        "text",
        description="text: a sample has the concepts that its caption names. embedding: it has the `concepts_top_k` "
        "concepts whose names are nearest to its picture or clip by the scorer; captions are not needed.",
    )
    concepts_top_k: int = Field(1, ge=1, le=100, description="Concepts of a sample by embedding.")
    concepts_ignore_case: bool = Field(
        False, description="Match captions whatever their case; MetaCLIP does not. For lists in lower case."
    )
    concept_kinds: list[Literal["image", "video", "audio", "text", "document"]] = Field(
        default=["image"], min_length=1, description="Kinds of samples that are thinned by concepts."
    )
    concept_cap: int = Field(
        20_000,
        ge=1,
        description="MetaCLIP's t: a concept with more matches than this is thinned. Of lists for each language it is "
        "English's (else the first list's); the others follow from it: the same share of matches is rare.",
    )
    max_per_host: int | None = Field(
        None, ge=1, description="At most so many samples of one host (`images.example.co.uk`); null: off."
    )
    max_per_domain: int | None = Field(
        None,
        ge=1,
        description="At most so many samples of one registrable domain (`example.co.uk`), so that no single site, "
        "and no buyer of an expired domain, dominates a corpus; null: off.",
    )
    keep_of_domain: Literal["score", "hash"] = Field(
        "score", description="Which samples of a capped host stay: those with the best CLIP scores, or a draw by hash."
    )
    domain_suffixes: list[str] = Field(
        default_factory=list,
        description="Domains under which many people have subdomains; each subdomain counts separately, e.g. "
        "[github.io].",
    )
    tolerance: float = Field(
        0.1, ge=0, description="A rate of the last release is kept unless it drifts by more than this share."
    )

    @property
    def caps_domains(self) -> bool:
        return self.max_per_host is not None or self.max_per_domain is not None

    @property
    def by_ratio(self) -> bool:
        """Whether the rule of version 0.1 applies: `max_ratio`, or no balance of signatures."""
        return self.alpha is None and self.mix is None

    @property
    def unused(self) -> set[str]:
        """Keys that have no effect at present, and so are left out of fingerprints."""
        keys = {"alpha"} if self.mix is not None or self.by_ratio else set()
        keys |= set() if self.size is not None else {"size"}
        keys |= set() if self.mix is not None and self.size is None else {"max_loss"}
        keys |= _OF_CONCEPTS if self.concepts is None else set()
        keys |= {"concepts_top_k"} if self.concepts_by == "text" else {"concepts_ignore_case"}
        if not self.caps_domains:
            keys |= {"max_per_host", "max_per_domain", "keep_of_domain", "domain_suffixes"}
        return keys

    @model_validator(mode="before")
    @classmethod
    def _max_ratio_takes_the_place_of_alpha(cls, values: Any) -> Any:
        if isinstance(values, dict) and "max_ratio" in values and "alpha" not in values:
            return {**values, "alpha": None}
        return values

    @field_validator("mix")
    @classmethod
    def _shares_sum_to_one(cls, mix: dict[str, float] | None) -> dict[str, float] | None:
        if mix is not None and (abs(sum(mix.values()) - 1) > 1e-6 or min(mix.values()) < 0):
            raise ValueError(f"shares must be >= 0 and sum to 1, not {sum(mix.values()):g}")
        return mix

    @model_validator(mode="after")
    def _one_rule(self) -> Balance:
        if self.max_ratio is not None and self.alpha is not None:
            raise ValueError("set alpha or max_ratio, not both: alpha repeats the scarce, max_ratio thins the common")
        if self.size is not None and self.by_ratio:
            raise ValueError("size needs a mix or alpha: take max_ratio out")
        if self.concepts_by == "embedding" and isinstance(self.concepts, dict):
            raise ValueError("concepts_by: embedding takes one list of concepts, because a picture has no language")
        return self


class Oversample(Section):
    """How often rare samples are repeated (repeat factor sampling, LVIS)."""

    threshold: float = Field(0.01, ge=0, le=1, description="A concept rarer than this share of a corpus is repeated.")
    max_repeats: int = Field(4, ge=1, le=100, description="At most so many copies of one sample; 1: off.")
    signatures: bool = Field(
        True,
        description="Repeat scarce combinations of modalities, too: as `balance` asks, or with `balance.max_ratio` "
        "those below `threshold`.",
    )
