"""Rows of a job on disk rather than in memory: tables and arrays in files that have no name.

Such a file is gone with the process that made it, however that ends. Its pages are the system's to keep or to drop, so
a job needs disk for its rows, and memory for a block of them. Files lie in `tempfile.gettempdir()`: `TMPDIR` names
another folder.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import Retryable

# Rows are read, learnt from and encoded in blocks of so many, whatever the pieces in which they came: sums over blocks
# are then the same on every machine. A multiple of every height in which outputs are computed.
BLOCK_ROWS = 65_536
# Smaller arrays stay in memory: a page of a file costs more than one of memory when it is touched first.
_IN_MEMORY_BYTES = 64 * 2**20


def store_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Write tables one after the other, each as it comes, and return them as one table that lies on disk.

    A column may be missing in some of them, and is null there; a table without rows is left out. Raises Retryable where
    the disk is full.
    """
    starts = []
    with _explain_full_disk(), tempfile.TemporaryFile(prefix="driftloop-rows-") as file:
        for table in tables:
            if table.num_rows:
                starts.append(file.tell())
                with pa.ipc.new_stream(file, table.schema) as stream:
                    stream.write_table(table)
        file.flush()
        if not starts:
            return pa.table({})
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # it outlives the file's closing
    return _join([pa.ipc.open_stream(content.slice(start)).read_all() for start in starts])


def _join(parts: Sequence[pa.Table]) -> pa.Table:
    types = {field.name: field.type for part in parts for field in part.schema}
    longest = max(part.num_rows for part in parts)
    columns = {}
    for name, type_ in types.items():
        # All that are missing share the memory of one.
        nulls = None if all(name in part.column_names for part in parts) else pa.nulls(longest, type_)
        chunks: list[pa.Array] = []
        for part in parts:
            if name in part.column_names:
                chunks += part[name].chunks
            elif nulls is not None:
                chunks.append(nulls.slice(0, part.num_rows))
        columns[name] = pa.chunked_array(chunks, type_)
    return pa.table(columns)


def split_blocks(rows: Any) -> Iterator[tuple[int, Any]]:
    """Give an Arrow table's or column's rows in blocks of BLOCK_ROWS, not copied, each with its first row's place."""
    for start in range(0, len(rows), BLOCK_ROWS):
        yield start, rows.slice(start, BLOCK_ROWS)


def allocate(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return zeros: in memory, or from 64 MiB on disk. Raises Retryable where the disk is full."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if num_bytes < _IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    with _explain_full_disk(), tempfile.TemporaryFile(prefix="driftloop-rows-") as file:
        # Taken now: a disk that is full when a page is written ends the process with a signal.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return np.frombuffer(mmap.mmap(file.fileno(), num_bytes), dtype).reshape(shape)


@contextmanager
def _explain_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        words = f"{tempfile.gettempdir()} has no room for the job's rows ({error.strerror})"
        raise Retryable(f"{words}; TMPDIR names another folder") from error
