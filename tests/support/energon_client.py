"""A reader of Megatron-Energon's that takes samples as they are: a cooker for crude datasets."""

from __future__ import annotations

from typing import Any

from megatron.energon import Cooker, DefaultTaskEncoder, Sample, basic_sample_keys, edataclass, stateless


@edataclass
class Members(Sample):
    """The extensions of what a sample holds."""

    members: list[str]


@stateless
def cook(sample: dict[str, Any]) -> Members:
    return Members(**basic_sample_keys(sample), members=sorted(name for name in sample if not name.startswith("__")))


class Whole(DefaultTaskEncoder):
    """Samples in lists, as they were cooked."""

    cookers = (Cooker(cook),)

    def batch(self, samples: list[Any]) -> list[Any]:
        return samples

    def encode_batch(self, batch: Any) -> Any:
        return batch
