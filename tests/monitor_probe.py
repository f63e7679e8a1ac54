"""The monitor, up to where stages 2 and 3 would begin: then it says what it has imported, and does nothing more.

`python -m tests.monitor_probe monitor`
"""

import sys
import threading

from driftloop import roles
from driftloop.imports import import_faust_without_aiohttp


def report(_: object) -> None:
    print("IMPORTED", *sorted(sys.modules), flush=True)
    threading.Event().wait()


def main() -> int:
    # As the role does, before anything else imports Faust.
    import_faust_without_aiohttp()
    import streams.counting
    import streams.progressing

    # Only the first chunk ends the head start: this is about the path to it.
    streams.counting._HEAD_START_S = 600.0
    streams.progressing._Followers._open_workbench = report  # type: ignore[assignment]
    return roles.main()


if __name__ == "__main__":
    roles.leave(main())
