"""The errors that mmdata raises on purpose: each text says what is wrong, where, and how to repair it."""

from __future__ import annotations

import errno
import os


class MMDataError(Exception):
    """Base class of the errors that mmdata raises on purpose; the text can be shown without a traceback."""


class UserError(MMDataError):
    """The user made a mistake: a wrong setting or argument, or a missing package. CLI exit code 2."""


class DataError(MMDataError):
    """The data is bad: a corrupt file, a failed check, a shard that does not verify. CLI exit code 1."""


_MACHINE_REMEDIES = {
    errno.ENOSPC: "free space (`mmdata status --disk`, `mmdata gc`), then the same command again; what is done is kept",
    errno.EDQUOT: "raise the quota or free space, then the same command again; what is done is kept",
    errno.EROFS: "mount the disk writable, or name another folder",
    errno.EACCES: "give your user the permission, or name another folder",
    errno.EPERM: "give your user the permission, or name another folder",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`), then run the same command again",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name another folder: a part of this path is a file",
}


_SQLITE_ERRORS = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_PERM": errno.EACCES}


def describe_machine_error(error: BaseException) -> str | None:
    """What the machine refused, of which file, and the remedy; None if neither the error nor its causes say so."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        number = _SQLITE_ERRORS.get(getattr(cause, "sqlite_errorname", ""), number)
        if number in _MACHINE_REMEDIES:
            file = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
            return f"{f'{file}: ' if file else ''}{os.strerror(number)}. Remedy: {_MACHINE_REMEDIES[number]}."
        cause = cause.__cause__ or cause.__context__
    return None


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
