"""Support tickets, and the queues that a model sends them to: reference.parquet, stream.parquet.

The same files whenever it is run. From day 4 of the stream on a third of the tickets is about a new product, a smart
lamp, in words that the model has never read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

TICKETS_A_DAY = 500
REFERENCE_DAYS = 20
STREAM_DAYS = 12
FIRST_DAY_OF_LAMP = 4
SHARE_OF_LAMP = 0.35
SHARE_MISFILED = 0.04
GREETINGS = ["hello", "hi there", "good morning", "dear team", "hey", "to whom it may concern"]
CLOSINGS = ["thanks", "please help", "best regards", "waiting for your answer", "this is urgent", "kind regards"]
SUBJECTS = ["my order", "the parcel", "your shop", "the last purchase", "the item", "our account"]
# fmt: off
KNOWN = {
    "billing": [
        "was charged twice", "shows a wrong invoice", "needs a refund", "has a strange fee", "lost the voucher",
    ],
    "delivery": ["has not arrived", "came damaged", "is stuck at customs", "went to the neighbour", "is late again"],
    "account": ["cannot be opened with my password", "has my old address", "is locked", "sends too many mails"],
    "technical": ["crashes on my phone", "shows an error page", "loads for ever", "freezes when I search"],
}
LAMP = {
    "billing": ["lamp premium renews although I cancelled", "sunrise plan costs more than promised"],
    "delivery": ["starter kit lacks the bridge", "second bulb is missing in the box"],
    "account": ["lamp still belongs to the former owner", "bridge asks for a pairing code"],
    "technical": [
        "bulb flickers after pairing", "bridge drops off the wifi", "firmware stops at half", "dimmer ignores scenes",
    ],
}
# fmt: on


def write_tickets(rng: np.random.Generator, queue: np.ndarray, about_lamp: np.ndarray) -> list[str]:
    """One text a ticket."""
    texts = []
    for name, is_lamp in zip(queue, about_lamp, strict=True):
        subject = "the" if is_lamp else rng.choice(SUBJECTS)
        complaint = rng.choice((LAMP if is_lamp else KNOWN)[name])
        texts.append(f"{rng.choice(GREETINGS)}, {subject} {complaint}, {rng.choice(CLOSINGS)}")
    return texts


def draw_tickets(rng: np.random.Generator, start: str, num_days: int, first_day_of_lamp: int | None) -> pd.DataFrame:
    """TICKETS_A_DAY tickets a day with the queue that solved them in `queue`; a few were filed anywhere."""
    num = num_days * TICKETS_A_DAY
    queue = rng.choice(list(KNOWN), num, p=[0.3, 0.35, 0.15, 0.2])
    day = np.arange(num) // TICKETS_A_DAY
    starts = num if first_day_of_lamp is None else first_day_of_lamp
    about_lamp = (day >= starts) & (rng.random(num) < SHARE_OF_LAMP)
    text = write_tickets(rng, queue, about_lamp)
    misfiled = rng.random(num) < SHARE_MISFILED
    return pd.DataFrame({
        "at": pd.Timestamp(start, tz="UTC") + np.arange(num) * (pd.Timedelta(days=1) / TICKETS_A_DAY),
        "text": text, "queue": np.where(misfiled, rng.choice(list(KNOWN), num), queue),
    })  # fmt: skip


def main(folder: Path) -> None:
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    learnt = draw_tickets(rng, "2025-11-01", REFERENCE_DAYS, None)
    model = make_pipeline(HashingVectorizer(n_features=2**14, ngram_range=(1, 2)), LogisticRegression(max_iter=300))
    model.fit(learnt["text"], learnt["queue"])
    reference = draw_tickets(rng, "2025-12-12", REFERENCE_DAYS, None)
    stream = draw_tickets(rng, "2026-01-01", STREAM_DAYS, FIRST_DAY_OF_LAMP)
    for name, tickets in (("reference", reference), ("stream", stream)):
        scores = model.predict_proba(tickets["text"]).round(6)
        tickets[[f"proba_{queue}" for queue in model.classes_]] = scores
        right = model.classes_[scores.argmax(axis=1)] == tickets["queue"]
        tickets.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(tickets)} tickets, {right.mean():.3f} of them sent to the right queue")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
