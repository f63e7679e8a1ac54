"""Shapes of data that streams are drawn from: twenty features each, rows independent unless a shape says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_FEATURES = 20
NUM_HALF = NUM_FEATURES // 2
NUM_SESSION_ROWS = 10
# What codes of categories stand for.
VALUES = [f"value {code}" for code in range(200)]


@dataclass(slots=True)
class Columns:
    """n rows: `numbers` float64[n], NaN being null; `codes` int64[n] of VALUES, -1 being null; scores float64[n]."""

    numbers: dict[str, Floats]
    codes: dict[str, Ints]
    score: Floats

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: slice) -> Columns:
        """Give some of the rows."""
        return Columns(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.codes.items()},
            self.score[rows],
        )


Draw = Callable[[np.random.Generator, int], tuple[list[Floats], list[Ints]]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How features are drawn; `segments` are features whose values are segments of the model."""

    name: str
    draw_features: Draw
    segments: tuple[str, ...] = ()

    def draw(self, rng: np.random.Generator, num_rows: int) -> Columns:
        """Give rows with a score that follows the first feature."""
        numbers, codes = self.draw_features(rng, num_rows)
        first = (numbers or codes)[0].astype(np.float64)
        score = special.expit(np.tanh(np.nan_to_num(first)) + rng.normal(size=num_rows))
        return Columns(
            {f"number_{index:02d}": values for index, values in enumerate(numbers)},
            {f"category_{index:02d}": values for index, values in enumerate(codes)},
            score,
        )


def draw_normal(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Independent normal numbers."""
    return list(rng.normal(size=(NUM_FEATURES, num_rows))), []


def draw_heavy(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Student's t with 2 degrees of freedom, which has no variance."""
    size = (NUM_FEATURES, num_rows)
    return list(rng.normal(size=size) / np.sqrt(rng.exponential(size=size))), []


def draw_tied(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Half of the numbers are 0 in 95 of 100 rows, the others take few values."""
    size = (NUM_HALF, num_rows)
    sparse = np.where(rng.random(size) < 0.95, 0.0, rng.exponential(size=size))
    coarse = np.floor(rng.exponential(1.5, size))
    return [*sparse, *coarse], []


def draw_categories(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Categories of 3 to 200 values, most of them rare."""
    sizes = np.geomspace(3, len(VALUES), NUM_FEATURES).round().astype(int).tolist()
    return [], [draw_codes(rng, num_rows, size) for size in sizes]


def draw_correlated(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Numbers and categories that follow two factors; within a factor the correlation is .8."""
    factors = rng.normal(size=(2, num_rows))
    values = np.sqrt(0.8) * np.repeat(factors, NUM_HALF, axis=0)
    values += np.sqrt(0.2) * rng.normal(size=(NUM_FEATURES, num_rows))
    # Every second one is cut into a category of 3 to 12 values.
    cuts = [special.ndtri(np.arange(1, size) / size) for size in range(3, 3 + NUM_HALF)]
    codes = [np.searchsorted(cut, each) for cut, each in zip(cuts, values[1::2], strict=True)]
    return list(values[::2]), codes


def draw_nulls(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Numbers and categories with nulls in .2 to 40 of 100 rows, half of them in the same rows."""
    shares = np.geomspace(0.002, 0.4, NUM_HALF)
    together = rng.random(num_rows)
    numbers = list(rng.normal(size=(NUM_HALF, num_rows)))
    codes = [draw_codes(rng, num_rows, size) for size in range(3, 3 + NUM_HALF)]
    for index, share in enumerate(shares):
        numbers[index][together < share] = np.nan
        codes[index][rng.random(num_rows) < share] = -1
    return numbers, codes


def draw_sessions(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Normal numbers of sessions of ten rows, within which the correlation is .5."""
    num_sessions = -(-num_rows // NUM_SESSION_ROWS)
    sessions = np.repeat(rng.normal(size=(NUM_FEATURES, num_sessions)), NUM_SESSION_ROWS, axis=1)[:, :num_rows]
    return list(np.sqrt(0.5) * (sessions + rng.normal(size=(NUM_FEATURES, num_rows)))), []


def draw_even_categories(rng: np.random.Generator, num_rows: int) -> tuple[list[Floats], list[Ints]]:
    """Categories of 10 values each."""
    return [], [draw_codes(rng, num_rows, 10) for _ in range(NUM_FEATURES)]


def draw_codes(rng: np.random.Generator, num_rows: int, num_values: int) -> Ints:
    """Draw codes of which the k-th has a share in proportion to k^-1.1."""
    ends = np.cumsum(np.arange(1, num_values + 1) ** -1.1)
    codes: Ints = np.searchsorted(ends[:-1] / ends[-1], rng.random(num_rows), side="right")
    return codes


SHAPES = (
    Shape("normal", draw_normal),
    Shape("heavy tails", draw_heavy),
    Shape("zeros and ties", draw_tied),
    Shape("categories", draw_categories, segments=("category_00",)),
    Shape("correlated", draw_correlated, segments=("category_01",)),
    Shape("nulls", draw_nulls),
)
SESSIONS = Shape("sessions of ten", draw_sessions)
CATEGORIES = Shape("categories of ten", draw_even_categories)
