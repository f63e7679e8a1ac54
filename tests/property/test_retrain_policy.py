"""Whatever happens in whatever order: no two requests within the cooldown, none beyond the budget, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.spec import BudgetSpec, RetrainSpec
from streams.logic.policy import Asked, Cause, decide_retraining

INSTANTS = st.integers(0, 500)


@st.composite
def causes(draw: st.DrawFn, num_max: int = 30) -> list[Cause]:
    made: dict[tuple[str, int], Cause] = {}
    for _ in range(draw(st.integers(0, num_max))):
        rule, first = draw(st.sampled_from(["harm", "drift", "schedule"])), draw(INSTANTS)
        due = first + draw(st.integers(0, 50))
        held_to = draw(st.one_of(st.just(due), st.integers(due, 1000)))
        made[rule, first] = Cause(rule, first, due, held_to)
    return list(made.values())


@st.composite
def limits(draw: st.DrawFn) -> RetrainSpec:
    jobs = draw(st.one_of(st.none(), st.integers(1, 4)))
    budget = None if jobs is None else BudgetSpec(jobs=jobs, per_ms=draw(st.integers(1, 300)))
    return RetrainSpec(cooldown_ms=draw(st.integers(1, 200)), budget=budget)


def make(found: Sequence[Cause], asked: Sequence[Asked], retrain: RetrainSpec) -> list[Asked]:
    """All requests after one more look."""
    new = [each for each in decide_retraining(found, asked, retrain) if each.wanted]
    return [*asked, *(Asked(each.cause.rule, each.cause.first, each.at) for each in new)]


def check(asked: Sequence[Asked], retrain: RetrainSpec) -> None:
    dues = sorted(each.due for each in asked)
    assert all(later - sooner >= retrain.cooldown_ms for sooner, later in pairwise(dues))
    assert len({(each.rule, each.first) for each in asked}) == len(asked)
    budget = retrain.budget
    if budget is not None and budget.jobs is not None:
        for due in dues:
            assert sum(due - budget.per_ms < each <= due for each in dues) <= budget.jobs


@given(causes(), limits())
def test_one_look_keeps_the_limits_and_a_second_one_asks_for_nothing(found: list[Cause], retrain: RetrainSpec) -> None:
    asked = make(found, [], retrain)
    check(asked, retrain)
    assert make(found, asked, retrain) == asked
    # The first one due is never held back.
    assert bool(asked) == bool(found)


@given(causes(), limits(), st.randoms(use_true_random=False))
def test_the_order_in_which_causes_are_listed_does_not_matter(found, retrain, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(found)
    random.shuffle(shuffled)
    assert sorted(make(found, [], retrain), key=repr) == sorted(make(shuffled, [], retrain), key=repr)


@given(st.lists(causes(8), max_size=6), limits())
def test_looks_that_each_find_more_keep_the_cooldown(looks: list[list[Cause]], retrain: RetrainSpec) -> None:
    """Labels come late, so a cause may be found that is older than requests already made."""
    asked: list[Asked] = []
    for found in looks:
        asked = make(found, asked, RetrainSpec(cooldown_ms=retrain.cooldown_ms))
        check(asked, RetrainSpec(cooldown_ms=retrain.cooldown_ms))


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_a_thousand_alerts_of_one_incident_make_one_request(start: int, cooldown: int) -> None:
    found = [
        Cause("harm", start + i % cooldown, start + i % cooldown, start + i % cooldown, f"a{i}") for i in range(1000)
    ]
    assert len(make(found, [], RetrainSpec(cooldown_ms=cooldown))) == 1
