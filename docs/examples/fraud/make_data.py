"""Card payments, and the scores of a model that was trained on the quarter before: reference.parquet, stream.parquet.

The same files whenever it is run. From day 5 of the stream on there is a kind of fraud that the model has never seen:
stolen cards are tried out with payments in quick succession in the app.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

ROWS_A_DAY = 2_000
REFERENCE_DAYS = 30
STREAM_DAYS = 14
FIRST_DAY_OF_TRIALS = 5
SHARE_OF_TRIALS = 0.06
COUNTRIES, SHARES = ["DE", "FR", "PL", "US", "other"], [0.55, 0.2, 0.1, 0.1, 0.05]
CHANNELS = ["shop", "web", "app"]


def draw_payments(rng: np.random.Generator, start: str, num_days: int, first_day_of_trials: int | None) -> pd.DataFrame:
    """ROWS_A_DAY payments a day in order of time, with the truth in `fraud`."""
    rows = num_days * ROWS_A_DAY
    second = np.sort(rng.integers(0, 86_400, (num_days, ROWS_A_DAY)), axis=1) + 86_400 * np.arange(num_days)[:, None]
    second = second.ravel()
    hour = second // 3600 % 24
    amount = rng.lognormal(3.6, 1.0, rows)
    country = rng.choice(COUNTRIES, rows, p=SHARES)
    channel = rng.choice(CHANNELS, rows, p=[0.5, 0.3, 0.2])
    account_days = rng.exponential(700, rows) + 1
    last_hour = rng.poisson(0.4, rows)
    logit = (
        -5.0 + 1.0 * np.log(amount / 40) + 1.5 * (country == "other") + 0.8 * (country == "US")
        + 1.2 * (channel == "web") + 1.5 * (hour < 6) + 1.6 * (account_days < 60)
    )  # fmt: skip
    fraud = rng.random(rows) < 1 / (1 + np.exp(-logit))
    if first_day_of_trials is not None:
        trial = (second >= 86_400 * first_day_of_trials) & (rng.random(rows) < SHARE_OF_TRIALS)
        amount = np.where(trial, rng.uniform(5, 60, rows), amount)
        channel = np.where(trial, "app", channel)
        last_hour = np.where(trial, 2 + rng.poisson(3, rows), last_hour)
        fraud |= trial
    return pd.DataFrame({
        "at": pd.Timestamp(start, tz="UTC") + pd.to_timedelta(second, unit="s"),
        "amount": amount.round(2), "hour": hour, "country": country, "channel": channel,
        "account_days": account_days.round(), "last_hour": last_hour, "fraud": fraud.astype(int),
    })  # fmt: skip


def encode(rows: pd.DataFrame) -> np.ndarray:
    """What the model in production reads: numbers, and the place of each category in its list."""
    numbers = rows[["amount", "hour", "account_days", "last_hour"]].to_numpy(float)
    return np.column_stack([numbers, rows["country"].map(COUNTRIES.index), rows["channel"].map(CHANNELS.index)])


def main(folder: Path) -> None:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    learnt = draw_payments(rng, "2025-09-01", 2 * REFERENCE_DAYS, None)
    model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.07, max_leaf_nodes=8, random_state=0)
    model.fit(encode(learnt), learnt["fraud"])
    reference = draw_payments(rng, "2025-12-02", REFERENCE_DAYS, None)
    stream = draw_payments(rng, "2026-01-01", STREAM_DAYS, FIRST_DAY_OF_TRIALS)
    for name, rows in (("reference", reference), ("stream", stream)):
        rows["score"] = model.predict_proba(encode(rows))[:, 1].round(6)
        rows.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(rows)} rows, {rows['fraud'].mean():.3f} of them fraud")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
