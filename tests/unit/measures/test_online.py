"""A detector's state is read only if we signed it; values it is not made for are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.online import OnlineDetector

KEY = b"a key of this installation"


class Bomb:
    """Unpickling it is an error that no signature check would raise."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("unpickled without a valid signature",)


def test_only_our_own_signature_is_unpickled() -> None:
    import pickle

    state = OnlineDetector("adwin").state(KEY)
    forged = bytes(32) + pickle.dumps(Bomb())
    flipped = state[:-1] + bytes([state[-1] ^ 1])
    for name, key, data in [
        ("adwin", b"another key", state),
        ("kswin", KEY, state),
        ("adwin", KEY, flipped),
        ("adwin", KEY, forged),
        ("adwin", KEY, state[:20]),
        ("adwin", KEY, b""),
    ]:
        with pytest.raises(ValueError, match="does not carry our signature"):
            OnlineDetector.restore(name, data, key)
    assert OnlineDetector.restore("adwin", state, KEY).num_updates == 0


def test_a_state_of_another_river_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = OnlineDetector("ddm").state(KEY)
    monkeypatch.setattr("measures.online.version", lambda _: "99.0")
    with pytest.raises(ValueError, match=r"this is 99\.0; begin a new detector"):
        OnlineDetector.restore("ddm", state, KEY)


def test_missing_values_are_passed_over() -> None:
    stream = np.array([0.0] * 200 + [1.0] * 200)
    holey = np.insert(stream, [0, 100, 100], math.nan)
    plain, gappy = OnlineDetector("ddm"), OnlineDetector("ddm")
    assert gappy.update(holey) == [index + 3 for index in plain.update(stream)] != []
    assert gappy.num_updates == plain.num_updates == 400


@pytest.mark.parametrize(
    ("name", "value"), [("adwin", math.inf), ("ddm", 0.5), ("eddm", 2.0), ("hddm_a", 1.1), ("hddm_w", -0.1)]
)
def test_values_it_is_not_made_for_are_refused_before_any_is_fed(name: str, value: float) -> None:
    detector = OnlineDetector(name)
    with pytest.raises(ValueError, match=name):
        detector.update(np.array([0.0, 1.0, value]))
    assert detector.num_updates == 0


def test_unknown_names_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="no online detector 'cusum'; use adwin, "):
        OnlineDetector("cusum")
    with pytest.raises(ValueError, match=r"online detector adwin: .*delta_x"):
        OnlineDetector("adwin", delta_x=1)
