"""Importing a role's code in less time. Tricks with other people's imports stand here, and nowhere else."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def importing_quickly() -> Iterator[None]:
    """Import in this context what is needed for good: without collecting garbage meanwhile, of which there is none.

    Saves a tenth of the time; and what is there at the end is not looked through by later collections either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_arrow_from_pandas() -> None:
    """Have PyArrow look for pandas now, and not find it, unless it is imported already.

    PyArrow imports pandas with its first conversion, only to recognise pandas' objects: that takes as long as importing
    all of Faust. Others can import pandas afterwards, and frames become tables and come back as ever. But in this
    process PyArrow will not know NaT and NA within a list: for roles that have none.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        # PyArrow's Python and C++ sides look once each: the former at what is no array of NumPy, the latter at a list.
        pa.array([None])
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Pandas is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return None
