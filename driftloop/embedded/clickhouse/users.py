"""Who may connect: names, passwords and whether a user may only read. chDB has no users of its own."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message

from driftloop.embedded.clickhouse.errors import AUTHENTICATION_FAILED, ServerError


@dataclass(frozen=True)
class User:
    """A name, its password (empty: none asked) and its right."""

    name: str
    password: str = ""
    readonly: bool = False

    @classmethod
    def parse(cls, text: str) -> User:
        """Read `NAME:PASSWORD` or `NAME:PASSWORD:readonly`; ValueError says what is wrong.

        A password may contain colons, so only a last part `readonly` is taken for the right.
        """
        name, colon, password = text.partition(":")
        if not name or not colon:
            raise ValueError(f"--user {name or text!r}: expected NAME:PASSWORD or NAME:PASSWORD:readonly")
        if password.endswith(":readonly"):
            return cls(name, password.removesuffix(":readonly"), readonly=True)
        return cls(name, password)


class Users:
    """The users of one server; `default` has full rights and no password unless it is given one."""

    def __init__(self, users: Iterable[User] = ()) -> None:
        self._users = {"default": User("default")}
        self._users.update((user.name, user) for user in users)

    def authenticate(self, headers: Message, params: Mapping[str, str]) -> User:
        """Return the user whose name and password the request carries; ServerError 516 if they do not fit.

        They are looked for where ClickHouse does: basic authentication, X-ClickHouse-User and -Key, the URL.
        """
        name, password = _credentials(headers, params)
        user = self._users.get(name)
        known = secrets.compare_digest((user.password if user else "").encode(), password.encode())
        if user is None or not known:
            reason = f"{name}: Authentication failed: password is incorrect, or there is no user with such name."
            raise ServerError(AUTHENTICATION_FAILED, reason)
        return user


def _credentials(headers: Message, params: Mapping[str, str]) -> tuple[str, str]:
    authorization = headers.get("Authorization") or ""
    if authorization.startswith("Basic "):
        try:
            name, _, password = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ServerError(AUTHENTICATION_FAILED, "Invalid HTTP basic authentication header.") from error
        return name or "default", password
    if headers.get("X-ClickHouse-User") is not None:
        return headers["X-ClickHouse-User"] or "default", headers.get("X-ClickHouse-Key") or ""
    return params.get("user") or "default", params.get("password") or headers.get("X-ClickHouse-Key") or ""
