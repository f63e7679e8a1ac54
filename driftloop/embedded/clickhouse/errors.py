"""Errors as ClickHouse tells them: a numeric code, `Code: N. DB::Exception: …`, and the HTTP status it goes with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

SYNTAX_ERROR = 62
BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
UNKNOWN_STORAGE = 56
UNKNOWN_COMPRESSION_METHOD = 89
READONLY = 164
NOT_ENOUGH_SPACE = 243
TOO_MANY_SIMULTANEOUS_QUERIES = 202
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
INVALID_SESSION_TIMEOUT = 374
AUTHENTICATION_FAILED = 516
STD_EXCEPTION = 1001
UNKNOWN_EXCEPTION = 1002

_NAMES = {
    SYNTAX_ERROR: "SYNTAX_ERROR",
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    UNKNOWN_STORAGE: "UNKNOWN_STORAGE",
    UNKNOWN_COMPRESSION_METHOD: "UNKNOWN_COMPRESSION_METHOD",
    READONLY: "READONLY",
    NOT_ENOUGH_SPACE: "NOT_ENOUGH_SPACE",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
    SESSION_IS_LOCKED: "SESSION_IS_LOCKED",
    INVALID_SESSION_TIMEOUT: "INVALID_SESSION_TIMEOUT",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    STD_EXCEPTION: "STD_EXCEPTION",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}

# Cannot parse …, bad arguments, syntax error, type mismatch, incorrect data, bad query parameter.
_BAD_REQUEST = {6, 25, 26, 27, 36, 38, 41, 44, 53, 62, 69, 70, 72, 117, 321, 374, 427, 441, 457, 675, 676}
# Unknown function, identifier, type, storage, table, aggregate function, format, query type, database, setting.
_NOT_FOUND = {46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336, 372}
_STATUS = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys(_NOT_FOUND, 404),
    194: 401,  # REQUIRED_PASSWORD
    **dict.fromkeys((164, 192, 193, 497, 516), 403),  # READONLY, UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED
    159: 408,  # TIMEOUT_EXCEEDED
    **dict.fromkeys((48,), 501),
    **dict.fromkeys((76, 202, 209, 439), 503),  # CANNOT_OPEN_FILE, too many queries, SOCKET_TIMEOUT, no thread
}

_ENGINE_ERROR = re.compile(r"Code: (\d+)\. DB::Exception: .*", re.DOTALL)
_ENGINE_VERSION = re.compile(r" \(version [^()]*(\([^()]*\))?\)\s*$")


class ServerError(Exception):
    """A refusal that the client sees as ClickHouse would tell it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {reason} ({_NAMES.get(code, 'UNKNOWN_EXCEPTION')})")
        self.code = code

    @classmethod
    def from_engine(cls, message: str) -> ServerError:
        """Return the engine's own error, without the words that the Python binding puts around it."""
        found = _ENGINE_ERROR.search(message)
        if found is None:
            return cls(UNKNOWN_EXCEPTION, message)
        error = cls(int(found.group(1)), "")
        error.args = (_ENGINE_VERSION.sub("", found.group(0)).rstrip(),)
        return error

    @property
    def http_status(self) -> int:
        """The status that ClickHouse answers with for this code."""
        return _STATUS.get(self.code, 500)

    def body(self, version: str) -> bytes:
        """Return the text that ClickHouse sends, with the version that clients look for at its end."""
        return f"{self} (version {version} (official build))\n".encode()


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn what the chDB binding raises (RuntimeError and its own ChdbError) into a ServerError."""
    try:
        yield
    except (ServerError, OSError):
        raise
    except Exception as error:  # ChdbError derives from Exception alone
        raise ServerError.from_engine(str(error)) from error
