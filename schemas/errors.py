"""The error tree: a user's mistake, a passing failure, and everything else.

Invalid events are no errors: `validation` turns them into dead letters.
"""

from __future__ import annotations


class DriftloopError(Exception):
    """Root of every error that the system raises on purpose."""


class ConfigurationError(DriftloopError):
    """A user's mistake in a file, a setting or an argument; commands print it without a stack trace and exit with 2.

    `str()` reads "file:line: key: message. remedy", leaving out what is not known.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, file, line, key, remedy)
        self.message = message
        self.file = file
        self.line = line
        self.key = key
        self.remedy = remedy

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = ": ".join(part for part in (place, self.key, self.message) if part)
        return f"{text.rstrip('.')}. {self.remedy}" if self.remedy else text


class Retryable(DriftloopError):
    """Something outside is away or overloaded: back off and try again until the deadline."""
