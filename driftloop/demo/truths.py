"""What must come out of the demo's data; published or measured independently, see docs/demo.md."""

from __future__ import annotations

# Windows are numbered from 0 and hold 5,000 rows.
ROWS = 5_000

EMPLOYMENT_WINDOWS = 42
EMPLOYMENT_HARMED = (27, 28)
EMPLOYMENT_REALIZED = {27: 0.8035, 28: 0.8642}
EMPLOYMENT_ESTIMATED = {27: 0.8368, 28: 0.8729}
EMPLOYMENT_DRIFT_FROM = 14

CAR_LOAN_WINDOWS = 10
CAR_LOAN_HARMED = (5, 6, 7, 8, 9)
CAR_LOAN_REALIZED = (
    0.970962, 0.970248, 0.976282, 0.967721, 0.969886, 0.96005, 0.95853, 0.959041, 0.963094, 0.957556,
)  # fmt: skip
CAR_LOAN_ESTIMATED = (
    0.970744, 0.971011, 0.971407, 0.971091, 0.971123, 0.96109, 0.961825, 0.961073, 0.962533, 0.961316,
)  # fmt: skip
# Windows scored by the new champion whose labels are there: what it must be better on.
CAR_LOAN_JUDGED = (8, 9)
CAR_LOAN_GAIN_MIN = 0.004
