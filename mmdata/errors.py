"""Errors for the person who meets them: what was wrong, where, and what to do about it."""

from __future__ import annotations


class MMDataError(Exception):
    """Root of the errors that mmdata raises on purpose; its text is fit to show without a traceback."""


class UserError(MMDataError):
    """The request itself is wrong: a configuration, an argument, a missing package. CLI exit code 2."""


class DataError(MMDataError):
    """The data is wrong: a corrupt file, a failed check, a shard that does not verify. CLI exit code 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters; the name of its class where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


class PartFailed(DataError):
    """Some slices of a part failed; the finished ones are kept and a re-run redoes only the failed ones.

    Args:
        part: the part's name, such as `web-000012`.
        stage: the stage that failed, such as `media`.
        failures: slice name -> error text.
        transient: a slice failed of a fault that may pass (disk, network, a lost worker): worth another try.
    """

    def __init__(self, part: str, stage: str, failures: dict[str, str], transient: bool = False) -> None:
        self.part, self.stage, self.failures, self.transient = part, stage, failures, transient
        lines = "\n".join(f"  slice {name}: {error}" for name, error in sorted(failures.items()))
        super().__init__(
            f"part {part}: {len(failures)} slice(s) failed in stage {stage}; the rest is kept.\n{lines}\n"
            f"Remedy: mend the cause, then materialise {stage} for {part} again; only these slices run."
        )
