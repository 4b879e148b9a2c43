"""How commands end: an exit code and one clear sentence."""

from __future__ import annotations

import errno

import click

from supabase_chunks.errors import ChunksError, ConfigurationError, WaitTimeout

FAILED, USAGE, TIMEOUT, INTERRUPTED = 1, 2, 3, 130
# As a shell counts the end by SIGPIPE: nobody reads the output any more (`| head`).
OUTPUT_CLOSED = 141
# A disk, or what stands for one, that takes no more.
FULL = {errno.ENOSPC, errno.EDQUOT}


class Failure(click.ClickException):
    """An expected failure: shown as one sentence on stderr."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        """Take the sentence and the exit code."""
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    @classmethod
    def of(cls, error: ChunksError) -> Failure:
        """Return what to show for an error of the SDK, the notes that were added to it included."""
        notes = getattr(error, "__notes__", [])
        codes = {WaitTimeout: TIMEOUT, ConfigurationError: USAGE}
        return cls("\n".join([str(error), *notes]), codes.get(type(error), FAILED))


def extra_needed(error: ImportError, extra: str) -> Failure:
    """Return what to say when a package of an extra is missing; raises the error when it is another one's.

    Args:
        error: What the import raised.
        extra: The extra that brings it.
    """
    if error.name is None or error.name.partition(".")[0] == "supabase_chunks":
        raise error
    return Failure(f"The package {error.name} is missing: run pip install 'supabase-chunks[{extra}]'.")
