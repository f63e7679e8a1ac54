"""Whatever windows are measured, measured again and judged how often: alerts fire once, resolve once, and in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.logic.alerts import Decision, Observation, Standing, Transition, advance

SIZE = 10

# One step: a window is measured for the first time or again, with this outcome; then it is judged.
steps = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["alert", "ok", "unknown"])), min_size=1, max_size=40)


def judge(known: dict[int, tuple[Decision, int]], said: list[Transition], num_needed: int) -> list[Transition]:
    """Judge as the monitor does: from what is stored, the windows and the transitions said so far."""
    windows = [
        Observation(index * SIZE, (index + 1) * SIZE, decision, revision)
        for index, (decision, revision) in sorted(known.items())
    ]
    standing = None
    if said:
        last = said[-1]
        standing = Standing(last.state, last.first_window_start, last.window_start)
    return advance(windows, standing, num_needed)


def run(story: list[tuple[int, Decision]], num_needed: int) -> tuple[list[Transition], dict[int, tuple[Decision, int]]]:
    known: dict[int, tuple[Decision, int]] = {}
    said: list[Transition] = []
    for index, decision in story:
        known[index] = (decision, known.get(index, ("unknown", 0))[1] + 1)
        said += judge(known, said, num_needed)
    return said, known


@given(steps, st.integers(1, 3))
def test_an_alert_fires_at_most_once_and_resolves_at_most_once(story: list[tuple[int, Decision]], needed: int) -> None:
    said, _ = run(story, needed)
    for state in ("pending", "firing", "resolved"):
        names = [each.first_window_start for each in said if each.state == state]
        assert len(names) == len(set(names))


@given(steps, st.integers(1, 3))
def test_at_most_one_alert_is_open_and_states_only_move_on(story: list[tuple[int, Decision]], needed: int) -> None:
    said, _ = run(story, needed)
    order = ["pending", "firing", "resolved"]
    open_alert: Transition | None = None
    for each in said:
        if open_alert is None:
            assert each.state == ("pending" if needed > 1 else "firing")
        else:
            assert each.first_window_start == open_alert.first_window_start
            assert order.index(each.state) > order.index(open_alert.state)
        open_alert = None if each.state == "resolved" else each


@given(steps, st.integers(1, 3))
def test_judging_again_says_nothing_new(story: list[tuple[int, Decision]], needed: int) -> None:
    said, known = run(story, needed)
    assert judge(known, said, needed) == []


@given(steps, st.integers(1, 3))
def test_what_is_open_agrees_with_the_windows(story: list[tuple[int, Decision]], needed: int) -> None:
    said, known = run(story, needed)
    decided = [decision for _, (decision, _) in sorted(known.items()) if decision != "unknown"]
    if said and said[-1].state != "resolved":
        since = [
            decision
            for index, (decision, _) in sorted(known.items())
            if index * SIZE >= said[-1].first_window_start and decision != "unknown"
        ]
        assert "alert" in since or not since  # nothing decided is left of a window that became unknown again
        assert not since or since[-1] == "alert"
    if not said:
        assert needed > len(decided) or ["alert"] * needed not in [
            decided[start : start + needed] for start in range(len(decided))
        ]


@given(st.lists(st.sampled_from(["alert", "ok", "unknown"]), min_size=1, max_size=30), st.integers(1, 3))
def test_windows_in_order_fire_at_the_first_run_and_resolve_at_the_next_good_window(
    decisions: list[Decision], needed: int
) -> None:
    said, _ = run(list(enumerate(decisions)), needed)
    expected: list[tuple[str, int]] = []
    streak, firing = 0, False
    for index, decision in enumerate(decisions):
        if decision == "alert":
            streak += 1
            if streak == needed and not firing:
                firing = True
                expected.append(("firing", index * SIZE))
        elif decision == "ok":
            if firing:
                expected.append(("resolved", index * SIZE))
            streak, firing = 0, False
    fired = {each.first_window_start for each in said if each.state == "firing"}
    assert [
        (each.state, each.window_start) for each in said if each.state != "pending" and each.first_window_start in fired
    ] == expected


def test_a_restatement_that_takes_the_alert_away_resolves_it_and_says_so() -> None:
    said, _ = run([(0, "ok"), (1, "alert"), (1, "ok")], 1)
    assert [(each.state, each.cause) for each in said] == [("firing", "run"), ("resolved", "restated")]


def test_a_window_becoming_unknown_again_resolves_too() -> None:
    said, _ = run([(0, "ok"), (1, "alert"), (1, "unknown")], 1)
    assert [(each.state, each.window_start, each.cause) for each in said[1:]] == [("resolved", SIZE, "restated")]
