"""Just enough reading of SQL to serve it: what kind of statement, in which format, where an insert's data begins.

The engine parses the SQL itself; this module only skips comments, strings and brackets, so that a word inside them
is never mistaken for a clause. Works on bytes, because data may follow the SQL in any encoding.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from driftloop.embedded.clickhouse.errors import NOT_IMPLEMENTED, SYNTAX_ERROR, UNKNOWN_STORAGE, ServerError

# Engines that talk to another system from a background thread or at start-up. chDB creates such tables, and one
# that is left behind can stop the whole data folder from starting again.
REFUSED_ENGINES = frozenset(
    {
        "kafka", "rabbitmq", "nats", "filelog", "s3queue", "azurequeue", "materializedpostgresql", "keepermap",
    }
)  # fmt: skip

_BACKSLASHED = str.maketrans({"\\": "\\\\", "'": "\\'", "`": "\\`"})
_TOKEN = re.compile(
    rb"""(?P<space> \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/ )
       | (?P<quoted> '(?:[^'\\]|\\.)*' | `(?:[^`\\]|\\.)*` | "(?:[^"\\]|\\.)*" )
       | (?P<word> \w+ )
       | (?P<sign> . )""",
    re.VERBOSE | re.DOTALL,
)
_DATA_START = re.compile(rb"[ \t\f]*;?[ \t\f]*\r?\n?")
_READS = frozenset({b"SELECT", b"WITH", b"FROM", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK"})
_STREAMS = frozenset({b"SELECT", b"WITH", b"FROM"})
_HARMLESS = frozenset({b"SET", b"USE"})


def quote(text: str) -> str:
    """Return the text as an SQL string literal."""
    return f"'{text.translate(_BACKSLASHED)}'"


def quote_name(name: str) -> str:
    """Return the name as a quoted SQL identifier."""
    return f"`{name.translate(_BACKSLASHED)}`"


@dataclass(frozen=True)
class Token:
    """One word, quoted text or sign; words in capitals; `depth` counts the open brackets around it."""

    kind: str
    text: bytes
    depth: int
    start: int
    end: int


def read_tokens(sql: bytes) -> Iterator[Token]:
    """Yield the tokens of the SQL in order, without space and comments, as lazily as the caller reads."""
    depth = 0
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "sign"
        if kind == "space":
            continue
        text = match.group().upper() if kind == "word" else match.group()
        depth -= text in (b")", b"]", b"}")
        yield Token(kind, text, depth, match.start(), match.end())
        depth += text in (b"(", b"[", b"{")


def first_word(sql: bytes) -> bytes:
    """Return the first word in capitals, past comments and opening brackets; empty when there is none."""
    return next((token.text for token in read_tokens(sql) if token.text != b"("), b"")


@dataclass(frozen=True)
class Insert:
    """An INSERT whose rows follow as data."""

    target: str  # INSERT INTO and the table with its columns
    settings: str  # the SETTINGS clause, or empty
    format: str
    data_start: int  # the first byte of data behind the statement

    def reading_from(self, path: str) -> str:
        """Return the same insert with its rows in a file, uncompressed."""
        source = f"FROM INFILE {quote(path)} COMPRESSION 'none'"
        return f"{self.target} {source} {self.settings} FORMAT {self.format}"


def parse_insert(sql: bytes) -> Insert | None:
    """Return the parts of an INSERT with data, or None for any other statement (INSERT … SELECT too).

    `sql` may end anywhere inside the data. Without FORMAT or VALUES the rows are taken for VALUES, as ClickHouse does.
    """
    tokens = read_tokens(sql)
    first = next(tokens, None)
    if first is None or first.text != b"INSERT":
        return None
    before, settings_start = b"", None

    def insert(end: int, form: str, data_start: int) -> Insert:
        middle = end if settings_start is None else settings_start
        return Insert(
            _decode(sql[:middle]).rstrip("; \r\n\t"), _decode(sql[middle:end]).rstrip("; \r\n\t"), form, data_start
        )

    for token in tokens:
        starts_clause = token.kind == "word" and token.depth == 0 and before != b"."
        if token.text in (b"SELECT", b"WITH") and (starts_clause or before == b"("):
            return None
        if starts_clause and token.text == b"VALUES":
            return insert(token.start, "Values", token.end)
        if starts_clause and token.text == b"INFILE" and before == b"FROM":
            raise ServerError(NOT_IMPLEMENTED, "FROM INFILE is not allowed over HTTP.")
        if starts_clause and token.text == b"SETTINGS":
            settings_start = token.start
        if starts_clause and token.text == b"FORMAT" and before != b"INTO":
            name = next(tokens, None)
            if name is not None and name.kind == "word":
                data = _DATA_START.match(sql, name.end)
                assert data is not None  # it matches the empty string
                return insert(token.start, _decode(sql[name.start : name.end]), data.end())
        before = token.text
    return insert(len(sql), "Values", len(sql))


@dataclass(frozen=True)
class Query:
    """Any statement but an INSERT with data."""

    sql: str
    format: str  # of its FORMAT clause; empty without one
    reads_only: bool
    streams: bool  # the engine can hand out its result piece by piece


def parse_query(sql: bytes) -> Query:
    """Return what the statement is; ServerError for what must not run here.

    Refused are several statements at once (62), INTO OUTFILE (48) and engines that need another system (56).
    """
    tokens = list(read_tokens(sql))
    if not tokens:
        raise ServerError(SYNTAX_ERROR, "Syntax error: Empty query.")
    first = first_word(sql)
    for before, token in itertools.pairwise(tokens):
        if before.text == b";" and before.depth == 0 and token.text != b";":
            raise ServerError(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed).")
        if before.text == b"INTO" and token.text == b"OUTFILE" and before.depth == 0:
            raise ServerError(NOT_IMPLEMENTED, "INTO OUTFILE is not allowed over HTTP.")
    if first in (b"CREATE", b"ATTACH", b"REPLACE"):
        _refuse_engines(tokens)
    return Query(_decode(sql), _find_format(sql, tokens), first in _READS or first in _HARMLESS, first in _STREAMS)


def _find_format(sql: bytes, tokens: list[Token]) -> str:
    """Return the name behind FORMAT, which ends the statement or stands before SETTINGS; empty without one."""
    ends = [token.text if token.depth == 0 else b"" for token in tokens[2:]] + [b";"]
    for word, name, end in zip(tokens, tokens[1:], ends, strict=False):
        if word.text == b"FORMAT" and word.depth == 0 and name.kind == "word" and end in (b";", b"SETTINGS"):
            return _decode(sql[name.start : name.end])
    return ""


def _refuse_engines(tokens: list[Token]) -> None:
    words = [token.text for token in tokens]
    for place, word in enumerate(words):
        if word != b"ENGINE":
            continue
        name = next((text for text in words[place + 1 : place + 3] if text != b"="), b"")
        engine = name.strip(b'`"').decode(errors="replace")
        if engine.lower() in REFUSED_ENGINES:
            reason = (
                f"Table engine {engine.capitalize()} is not supported by the embedded server: a table of it that is "
                "left behind keeps the data folder from starting. Use a ClickHouse server for it."
            )
            raise ServerError(UNKNOWN_STORAGE, reason)


def _decode(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        raise ServerError(SYNTAX_ERROR, f"Syntax error: the query is not UTF-8 at byte {error.start}.") from error
