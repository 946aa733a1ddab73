"""The errors that mmdata raises on purpose: each text says what is wrong, where, and how to repair it."""

from __future__ import annotations


class MMDataError(Exception):
    """Base class of the errors that mmdata raises on purpose; the text can be shown without a traceback."""


class UserError(MMDataError):
    """The user made a mistake: a wrong setting or argument, or a missing package. CLI exit code 2."""


class DataError(MMDataError):
    """The data is bad: a corrupt file, a failed check, a shard that does not verify. CLI exit code 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters; the name of its class if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


class PartFailed(DataError):
    """Some slices of a part failed. The other slices are kept; the next run does only the failed ones.

    Args:
        failures: slice name -> error text.
        transient: the cause may be temporary (disk, network, a lost worker), so the part is tried again.
    """

    def __init__(self, part: str, stage: str, failures: dict[str, str], transient: bool = False) -> None:
        self.part, self.stage, self.failures, self.transient = part, stage, failures, transient
        lines = "\n".join(f"  slice {name}: {error}" for name, error in sorted(failures.items()))
        super().__init__(
            f"part {part}: {len(failures)} slice(s) failed in stage {stage}; the rest is kept.\n{lines}\n"
            f"Remedy: repair the cause, then `mmdata build`, or materialise {stage} for {part}; only these slices run."
        )
