"""Online change detectors, fed value by value in order; the only module that imports River.

Owns their names, their state between windows and its signature. It must not choose what they are
fed: their flags depend on the order of the values, which the caller vouches for.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import pickle
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # River's and its dependencies' own, while they load
    from river import drift

# kswin is slow, 4,000–5,000 values a second (the others: 0.3–7 million); feed it aggregates.
# page_hinkley at its defaults flags one change many times.
_CLASSES: dict[str, Callable[..., Any]] = {
    "adwin": drift.ADWIN,
    "kswin": drift.KSWIN,
    "page_hinkley": drift.PageHinkley,
    "ddm": drift.binary.DDM,
    "eddm": drift.binary.EDDM,
    "hddm_a": drift.binary.HDDMA,
    "hddm_w": drift.binary.HDDMW,
}
DETECTORS: tuple[str, ...] = tuple(_CLASSES)

# These count errors: DDM and EDDM read bits, Hoeffding's bound holds for values within 0 … 1.
_BITS = frozenset({"ddm", "eddm"})
_UNIT_INTERVAL = frozenset({"hddm_a", "hddm_w"})

_MAC_NUM_BYTES = hashlib.sha256().digest_size


class OnlineDetector:
    """One River detector with a count of what it was fed and a state that survives a restart.

    Feeding values in chunks of any size, with `state` and `restore` between them, flags the same
    values as feeding them at once.

    >>> detector = OnlineDetector("ddm")
    >>> detector.update(np.array([0, 0, 0, 1] * 50 + [1] * 100))
    [216]
    >>> detector.num_updates
    300
    """

    def __init__(self, name: str, seed: int = 0, **parameters: Any) -> None:
        """Make the detector `name` (one of DETECTORS) with River's parameters of that class.

        `seed` matters to kswin alone, which draws samples. Raises ValueError for a name or a
        parameter that does not exist, or a value that River refuses.
        """
        if name not in _CLASSES:
            raise ValueError(f"there is no online detector {name!r}; use {', '.join(DETECTORS)}")
        if name == "kswin":
            parameters = {"seed": seed, **parameters}
        try:
            self._detector = _CLASSES[name](**parameters)
        except TypeError as error:
            raise ValueError(f"online detector {name}: {error}") from error
        self.name = name
        self.num_updates = 0

    def update(self, values: NDArray[Any]) -> list[int]:
        """Feed values in order; return the indices (into `values`) at which a change was flagged.

        After a flag the detector begins anew with the next value, as River documents. Missing
        values (NaN) are passed over and not counted. Raises ValueError, having fed nothing, for
        infinities, and for values that the detector is not made for: ddm and eddm read 0 (right)
        and 1 (wrong), hddm_a and hddm_w numbers from 0 to 1.
        """
        numbers = np.asarray(values, dtype=np.float64)
        self._check(numbers)
        flagged = []
        detector = self._detector
        for index, value in enumerate(numbers.tolist()):
            if math.isnan(value):
                continue
            detector.update(value)
            self.num_updates += 1
            if detector.drift_detected:
                flagged.append(index)
        return flagged

    def state(self, key: bytes) -> bytes:
        """Return the whole state, signed with `key`: a MAC (HMAC-SHA256, 32 bytes), then a pickle."""
        content = pickle.dumps((version("river"), self.num_updates, self._detector), protocol=5)
        return _sign(self.name, content, key) + content

    @classmethod
    def restore(cls, name: str, state: bytes, key: bytes) -> OnlineDetector:
        """Return the detector whose `state` was taken under the same name and key.

        Nothing is unpickled unless the MAC is right: ValueError for another key, another name or
        changed bytes. Also ValueError for a state of another River version, whose fields may differ:
        begin a new detector then.
        """
        mac, content = state[:_MAC_NUM_BYTES], state[_MAC_NUM_BYTES:]
        if not hmac.compare_digest(mac, _sign(name, content, key)):
            raise ValueError(f"the state of online detector {name!r} does not carry our signature; it was not read")
        written_by, num_updates, detector = pickle.loads(content)  # noqa: S301 - signed by us, checked above
        if written_by != version("river"):
            raise ValueError(
                f"the state of online detector {name!r} was written by River {written_by}, "
                f"this is {version('river')}; begin a new detector"
            )
        restored = cls.__new__(cls)
        restored.name, restored.num_updates, restored._detector = name, num_updates, detector
        return restored

    def _check(self, values: NDArray[np.float64]) -> None:
        if np.isinf(values).any():
            raise ValueError(f"online detector {self.name} was fed an infinity")
        if self.name in _BITS and not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
            raise ValueError(f"online detector {self.name} reads errors, 0 or 1, and was fed other values")
        if self.name in _UNIT_INTERVAL and ((values < 0.0) | (values > 1.0)).any():
            raise ValueError(f"online detector {self.name} reads values from 0 to 1, and was fed others")


def _sign(name: str, content: bytes, key: bytes) -> bytes:
    # The name is signed too, so that one detector's state cannot be passed off as another's.
    return hmac.digest(key, name.encode() + b"\0" + content, "sha256")
