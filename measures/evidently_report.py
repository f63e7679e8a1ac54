"""Evidently's HTML report of a window against its reference, for people who know it; nothing is judged by it.

Importing Evidently takes seconds and 280 MB, so it is imported inside the function.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pandas as pd

from measures.drift import AUTO

# Evidently writes values into a script of the page as they are, so that a value with `</script>` would end it and what
# follows would run as a script of its own. As JSON's escape `<` means the same and ends nothing.
_HIDDEN, _HIDDEN_ESCAPED = "\uf4a7", "\\uf4a7"


def make_report(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    numbers: Sequence[str],
    categories: Sequence[str],
    method: str = "auto",
) -> str:
    """Return one self-contained HTML page: drift of every column, and a summary of the data of both sides.

    Columns that either side lacks, or that have no value on one side, are left out. `method` as in `drift.method`.
    """
    with warnings.catch_warnings():
        # Evidently and what it imports use deprecated names of NumPy and pydantic while they load.
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset

        def has_values(name: str) -> bool:
            return all(name in side and side[name].notna().any() for side in (reference, window))

        numbers, categories = ([name for name in names if has_values(name)] for names in (numbers, categories))
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
        sides = [
            Dataset.from_pandas(_hide_tags(side, numbers, categories), data_definition=definition)
            for side in (window, reference)
        ]
        chosen = {kind: default if method == "auto" else method for kind, default in AUTO.items()}
        drift = DataDriftPreset(num_method=chosen["number"], cat_method=chosen["category"])
        html: str = Report([drift, DataSummaryPreset()]).run(*sides).get_html_str(as_iframe=False)
    return html.replace(_HIDDEN, "\\u003c").replace(_HIDDEN_ESCAPED, "\\u003c")


def _hide_tags(side: pd.DataFrame, numbers: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
    """Give the columns with a character of no meaning in place of `<` in their texts."""
    columns = side[[*numbers, *categories]].reset_index(drop=True)
    texts = {
        name: columns[name].map(lambda value: value.replace("<", _HIDDEN), na_action="ignore")
        for name in categories
        if columns[name].map(lambda value: isinstance(value, str), na_action="ignore").any()
    }
    return columns.assign(**texts)
