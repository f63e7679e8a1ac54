"""Only what is finished without a gap may be committed."""

from consumers.ledger import Ledger


def test_commits_stop_before_the_first_open_message() -> None:
    ledger = Ledger()
    first, second, third = ledger.open(10, 1), ledger.open(11, 2), ledger.open(15, 1)
    assert ledger.take_commit() is None
    ledger.finish(third)
    ledger.finish(second)
    assert ledger.take_commit() is None
    ledger.finish(first)
    assert ledger.take_commit() == 11
    assert ledger.take_commit() is None
    ledger.finish(second)
    assert ledger.take_commit() == 16
    assert len(ledger) == 0


def test_a_message_with_nothing_to_do_is_finished_at_once() -> None:
    ledger = Ledger()
    ledger.open(3, 0)
    assert ledger.take_commit() == 4
