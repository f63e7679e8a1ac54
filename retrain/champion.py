"""What the champion said of the gate rows: its stored predictions, in the order of the rows.

Owns the alignment; the champion is never run again, because it may live outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from schemas.spec import Task
from store.client import ClickHouse
from store.events import read_labelled

if TYPE_CHECKING:
    # The trainer reads what versions have said, and has no torch.
    from retrain.target import Scored

Floats = NDArray[np.float64]


def read_champion_outputs(
    ch: ClickHouse, model: str, version: str, start_ms: int, end_ms: int, record_ids: pa.ChunkedArray
) -> pd.DataFrame:
    """Return a version's stored predictions for these records, a row each; all NaN where it said nothing."""
    table = read_labelled(ch, model, version, start_ms, end_ms)
    kept = [name for name in table.column_names if name.startswith("s:") or name in _OUTPUTS]
    frame: pd.DataFrame = table.select(kept).to_pandas()
    frame = frame.drop_duplicates("record_id").set_index("record_id")
    return frame.reindex(record_ids.to_pylist())


_OUTPUTS = frozenset({"record_id", "score", "prediction", "prediction_text"})


def list_classes(outputs: pd.DataFrame, labels: NDArray[Any], learnt: Sequence[str]) -> tuple[str, ...]:
    """Return every class that a label or either model names, sorted."""
    named = {name[2:] for name in outputs.columns if name.startswith("s:")}
    named |= set(outputs.get("prediction_text", pd.Series(dtype=object)).dropna())
    return tuple(sorted(named | set(labels.tolist()) | set(learnt)))


def arrange_champion(outputs: pd.DataFrame, task: Task, classes: Sequence[str]) -> Floats:
    """Return the champion's outputs as the gate reads them; without probabilities its predictions stand for them."""
    if task == "regression":
        return outputs["prediction"].to_numpy(np.float64, na_value=np.nan)
    if task == "binary":
        score = outputs["score"].to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isnan(score), outputs["prediction"].to_numpy(np.float64, na_value=np.nan), score)
    named = [name for name in outputs.columns if name.startswith("s:")]
    found = np.zeros((len(outputs), len(classes)))
    for column, name in enumerate(classes):
        if f"s:{name}" in named:
            found[:, column] = outputs[f"s:{name}"].to_numpy(np.float64, na_value=0.0)
    silent = found.sum(axis=1) == 0
    for row in np.flatnonzero(silent).tolist():
        predicted = outputs["prediction_text"].iloc[row]
        if isinstance(predicted, str):
            found[row, list(classes).index(predicted)] = 1.0
        else:
            found[row] = np.nan
    return found


def arrange_challenger(scored: Scored, task: Task, classes: Sequence[str]) -> Floats:
    """Return the challenger's outputs as the gate reads them; a class that it never saw has probability 0."""
    if task == "regression":
        assert scored.prediction is not None
        return scored.prediction
    if task == "binary":
        assert scored.score is not None
        return scored.score
    assert scored.scores is not None
    silent = np.zeros(len(next(iter(scored.scores.values()))))
    return np.column_stack([scored.scores.get(name, silent) for name in classes])
