"""What becomes of a version after its gates: the shadow period of a challenger, and the rollback of a champion.

Owns these two decisions, from stored predictions and labels alone. Any number of trainers may decide: the log's first
role map counts, and nothing is remembered that a new process would not find again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from retrain.gate_gain import NAMES
from retrain.promotion import LostRaceError, Roles
from retrain.realized import Realized, compare_realized, falls_short, list_decided_windows
from retrain.role_maps import CHALLENGER, CHAMPION, SHADOW, crown, dismiss_challenger, find_beginning, roll_back
from retrain.rollback_alerts import RULE
from retrain.rollback_telling import RollbackTeller
from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.events import RoleMap
from schemas.instants import format_instant
from schemas.spec import ModelSpec, PublishedSpec, RetrainSpec
from store.client import ClickHouse
from store.jobs import read_measured_to
from store.pairs import PairedWindow
from store.versions import read_version

log = logging.getLogger(__name__)

_EVERY_S = 2.0

# The name of a version's promise among its metrics; `gate` writes it.
_PROMISE = "promised"


class Lifecycle:
    """Looks at every model with roles, a few seconds apart; `step` returns at once in between."""

    def __init__(
        self,
        runtime: Runtime,
        ch: ClickHouse,
        roles: Roles,
        find_spec: Callable[[str], PublishedSpec | None],
        clock: Clock,
    ) -> None:
        self._ch, self._roles, self._find_spec, self._clock = ch, roles, find_spec, clock
        self._teller = RollbackTeller(runtime, ch, roles, find_spec, clock)
        self._next_s = 0.0
        # What a look came to, so that equal rows are not compared again: (epoch, windows) by model.
        self._looked: dict[str, tuple[int, tuple[PairedWindow, ...]]] = {}

    def step(self) -> None:
        """Decide what can be decided; safe to repeat, and safe beside other trainers."""
        if self._clock.monotonic_s() < self._next_s:
            return
        for model in self._roles.models():
            try:
                self._look_at(model)
            except LostRaceError as error:
                log.info("model %s: %s", model, error)
            self._teller.tell(model)
        self._next_s = self._clock.monotonic_s() + _EVERY_S

    def close(self) -> None:
        """Leave the broker."""
        self._teller.close()

    def _look_at(self, model: str) -> None:
        published, current = self._find_spec(model), self._roles.find_current(model)
        if published is None or published.spec.retrain is None or current is None:
            return
        if CHALLENGER in current.roles:
            self._judge_shadow(published.spec, published.spec.retrain, current)
        elif published.spec.retrain.rollback is not None:
            self._judge_promotion(published.spec, published.spec.retrain, current)

    def _judge_shadow(self, spec: ModelSpec, retrain: RetrainSpec, current: RoleMap) -> None:
        """Promote the challenger when it was not worse in the first so many windows, else retire it."""
        champion, challenger = current.roles[CHAMPION], current.roles[CHALLENGER]
        beginning = find_beginning(self._roles.list_history(spec.model), CHALLENGER)
        assert beginning is not None
        needed = max(retrain.promote.shadow, 1)
        windows = self._list_windows(spec, champion, challenger, beginning.at)[:needed]
        if len(windows) < needed or self._has_looked(current, windows):
            return
        found = compare_realized(self._ch, spec, champion, challenger, windows, retrain.promote.confidence)
        passed = found.difference >= 0
        words = (
            f"version {challenger} was {'not ' if passed else ''}worse than {champion} in its shadow period of "
            f"{needed} windows from {format_instant(windows[0].window_start)} on: {_compare(found)}"
        )
        roles = crown(current.roles, challenger, champion) if passed else dismiss_challenger(current.roles)
        evidence = _list_evidence(found, windows)
        self._roles.change(spec.model, current, roles, words, "shadow", beginning.job_id, evidence)

    def _judge_promotion(self, spec: ModelSpec, retrain: RetrainSpec, current: RoleMap) -> None:
        """Roll back a champion that a job promoted, when the last so many windows all say so.

        A window says so when the champion is below its promise there, and surely below the version before it.
        """
        champion, previous = current.roles[CHAMPION], current.roles.get(SHADOW)
        beginning = find_beginning(self._roles.list_history(spec.model), CHAMPION)
        assert beginning is not None
        assert retrain.rollback is not None
        if previous is None or not beginning.job_id:
            return
        needed = retrain.rollback.for_
        windows = self._list_windows(spec, champion, previous, beginning.at)[-needed:]
        if len(windows) < needed or self._has_looked(current, windows):
            return
        version = read_version(self._ch, spec.model, champion)
        promised = version.metrics.get(_PROMISE, math.nan) if version else math.nan
        if math.isnan(promised):
            return
        found: list[Realized] = []
        for window in windows:
            each = compare_realized(self._ch, spec, champion, previous, [window], retrain.promote.confidence)
            if not (falls_short(each.metric, each.first, promised) and each.lower > 0):
                self._looked[spec.model] = (current.epoch, tuple(windows))
                return
            found.append(each)
        last = found[-1]
        words = (
            f"version {champion} is rolled back to {previous}: in {needed} windows in a row, the last from "
            f"{format_instant(windows[-1].window_start)} on, it was below its promise of {promised:.4f} and surely "
            f"below the version before it ({NAMES[last.metric]} {last.first:.4f} against {last.second:.4f} in the last)"
        )
        evidence = {
            **_list_evidence(last, windows),
            "window_start": windows[-1].window_start,
            "window_end": windows[-1].window_end,
            "version": champion,
            "value": last.first,
            "promised": promised,
            "loss": last.difference,
        }
        self._roles.change(spec.model, current, roll_back(current.roles), words, RULE, evidence=evidence)

    def _list_windows(self, spec: ModelSpec, first: str, second: str, since_ms: int) -> list[PairedWindow]:
        measured_to = read_measured_to(self._ch, spec.model)
        if measured_to is None:
            return []
        return list_decided_windows(self._ch, spec, first, second, since_ms, measured_to)

    def _has_looked(self, current: RoleMap, windows: Sequence[PairedWindow]) -> bool:
        """Say whether these very rows were compared already, to no effect."""
        return self._looked.get(current.model) == (current.epoch, tuple(windows))


def _compare(found: Realized) -> str:
    return (
        f"{NAMES[found.metric]} {found.second:.4f} against {found.first:.4f} on {found.num_rows:,} records that both "
        f"scored (gain {found.difference:+.4f}, interval {found.lower:+.4f} to {found.upper:+.4f})"
    )


def _list_evidence(found: Realized, windows: Sequence[PairedWindow]) -> dict[str, Any]:
    return {
        "metric": found.metric,
        "first": found.first,
        "second": found.second,
        "difference": found.difference,
        "lower": found.lower,
        "upper": found.upper,
        "num_rows": found.num_rows,
        "windows": [each.window_start for each in windows],
    }
