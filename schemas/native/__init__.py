"""The compiled kernels: work on every event that would cost a pass of NumPy for each step, or Python objects.

C sources stand beside this file, one idea each; `hatch_build.py` builds them. They know nothing of Python: arrays go in
by address, and are the caller's. Each kernel is declared here and wrapped in the module that owns its idea. ctypes lets
go of the interpreter's lock while one runs.
"""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path
from typing import Any

import numpy.typing as npt

from schemas.errors import ConfigurationError

_FOLDER = Path(__file__).parent
_REMEDY = "Build them with `python hatch_build.py` in the repository, or install driftloop again"

_POINTER = ctypes.c_void_p
_START = ctypes.c_char
_COUNT = ctypes.c_int64

_KERNELS: dict[str, tuple[Any, list[Any]]] = {
    # buffer, start, length, n, seeds, out: uint64[n]
    "hash_texts": (None, [_POINTER, _POINTER, _POINTER, _COUNT, _POINTER, _POINTER]),
    # buffer, start, length, n, codes: int32[n], first: int64[n] -> number of distinct texts, or -1: no memory
    "factorize_texts": (_COUNT, [_POINTER, _POINTER, _POINTER, _COUNT, _POINTER, _POINTER]),
    # buffer, start, length, n, ends: int64[n + 1], out
    "gather_texts": (None, [_POINTER, _POINTER, _POINTER, _COUNT, _POINTER, _POINTER]),
    # buffer, start, length, n, ms: int64[n], fits: uint8[n]
    "read_instants": (None, [_POINTER, _POINTER, _POINTER, _COUNT, _POINTER, _POINTER]),
    # columns, number of columns, n, counts: int64[columns]
    "count_numbers": (None, [_POINTER, _COUNT, _COUNT, _POINTER]),
    # columns, number of columns, n, names, name_ends, ends, keys, key_ends, items
    "write_number_map": (None, [_POINTER, _COUNT, _COUNT] + [_POINTER] * 6),
    # buffers, starts, lengths, number of columns, n, names, name_ends, ends, keys, key_ends, items, item_ends
    "write_text_map": (None, [_POINTER] * 3 + [_COUNT] * 2 + [_POINTER] * 7),
    # array_bytes, kept_bytes
    "keep_freed_memory": (None, [_COUNT, _COUNT]),
    # job -> number of columns, or -1: no memory
    "shred_json": (_COUNT, [_POINTER]),
    # layout, columns, codes, slots, outside, slot_begin, rows, group, n, counts, low, high, limbs
    "count_rows": (None, [_POINTER] * 8 + [_COUNT] + [_POINTER] * 4),
    # offset, rows, group, is_new, is_late, n, duplicates, late, ends: int64[groups]
    "tally_rows": (None, [_POINTER] * 5 + [_COUNT] + [_POINTER] * 3),
    # limbs, number of sums, words
    "carry_sums": (None, [_POINTER, _COUNT, _POINTER]),
    # buffer, size, since, room, then offset, timestamp, value, key and headers by start and length, number of headers
    # -> number of records, or -1: these are none
    "unpack_records": (_COUNT, [_POINTER] + [_COUNT] * 3 + [_POINTER] * 9),
    # data, size -> CRC-32C
    "crc32c": (ctypes.c_uint32, [_POINTER, _COUNT]),
    "identities_create": (_POINTER, []),
    "identities_free": (None, [_POINTER]),
    "identities_count": (_COUNT, [_POINTER]),
    # table, hashes, ordinals, n, expires_at, code, is_input, watermarks: int64[256], age_max -> 0, or -1: no memory
    "identities_add": (_COUNT, [_POINTER] * 3 + [_COUNT] * 4 + [_POINTER, _COUNT]),
    # table, events, n, age_max, is_new, is_new_input -> 0, or -1: no memory
    "identities_find_new": (_COUNT, [_POINTER] * 2 + [_COUNT] * 2 + [_POINTER] * 2),
    # table, watermarks: int64[256], now, age_max -> 0, or -1: no memory
    "identities_forget": (_COUNT, [_POINTER] * 2 + [_COUNT] * 2),
}


def _load() -> ctypes.CDLL:
    path = _FOLDER / "kernels.so"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigurationError(f"the compiled kernels cannot be loaded: {error}", remedy=_REMEDY) from error
    library.sources_hash.restype = ctypes.c_char_p
    sources = sorted([*_FOLDER.glob("*.c"), *_FOLDER.glob("*.h")])
    if sources and library.sources_hash().decode() != _hash(sources):
        raise ConfigurationError("the compiled kernels are of other sources than those beside them", remedy=_REMEDY)
    for name, (result, arguments) in _KERNELS.items():
        kernel = getattr(library, name)
        kernel.restype, kernel.argtypes = result, arguments
    return library


def _hash(sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def address(array: npt.NDArray[Any]) -> int:
    """Give where a contiguous array begins; keep the array alive while a kernel runs."""
    assert array.flags.c_contiguous
    if array.flags.writeable and array.size:
        # Half of what NumPy's own way takes, a hundred times a batch.
        return ctypes.addressof(_START.from_buffer(array))  # type: ignore[arg-type]
    return array.ctypes.data


kernels = _load()
