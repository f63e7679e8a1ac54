"""What MLflow calls to load a version: a model that maps a DataFrame of features to a DataFrame of outputs.

Owns the conversion between data frames and rows. It needs no MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from retrain.preprocessing import FeatureRows
from retrain.trained_model import TrainedModel, load_model
from store.artifacts import DamagedArtifactError, list_hashes

_LISTING = "SHA256SUMS"


class PyFunc:
    """A version behind MLflow's `predict`."""

    def __init__(self, model: TrainedModel) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score n rows; columns are those of the signature, and features that are not there are missing."""
        scored = self._model.score(read_rows(model_input))
        columns: dict[str, Any] = {}
        if scored.prediction_text is not None:
            columns["prediction"] = scored.prediction_text
        elif scored.prediction is not None:
            is_binary = scored.score is not None
            columns["prediction"] = scored.prediction.astype("int64") if is_binary else scored.prediction
        if scored.score is not None:
            columns["score"] = scored.score
        columns |= {f"scores.{name}": values for name, values in (scored.scores or {}).items()}
        return pd.DataFrame(columns, index=model_input.index)


def _load_pyfunc(path: str) -> PyFunc:
    """Load the files of the folder `data`, verified to the last bit; the name is MLflow's."""
    folder = Path(path)
    files = {each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.name != _LISTING}
    if list_hashes(files) != (folder / _LISTING).read_bytes():
        raise DamagedArtifactError(f"the files in {folder} are not what was exported; export the version again")
    return PyFunc(load_model(files))


def read_rows(frame: pd.DataFrame) -> FeatureRows:
    """Take numeric and boolean columns as numbers, the others as texts; missing stays missing."""
    numbers, texts = {}, {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            numbers[str(name)] = column.to_numpy("float64", na_value=float("nan"))
        else:
            values = [None if value is None or value != value else str(value) for value in column]
            texts[str(name)] = pa.array(values, pa.string())
    return FeatureRows(numbers, texts, len(frame))
