"""One server per data folder: a lock file that the operating system releases when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


class FolderInUse(Exception):
    """Another process holds the data folder."""


def lock_folder(folder: Path) -> IO[str]:
    """Create the folder, lock it and return the open lock file; FolderInUse names the process that holds it.

    Keep the file open for as long as the folder is used: closing it releases the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "server.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise FolderInUse(f"{folder} is in use by another ClickHouse server (process {holder})") from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
