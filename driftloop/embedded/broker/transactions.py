"""Transactions across partitions and group offsets: who may write, and how an end becomes durable.

    EMPTY ──begin──► ONGOING ──end──► PREPARE_COMMIT ──markers written──► COMPLETE_COMMIT
                                  or  PREPARE_ABORT                   or  COMPLETE_ABORT

The decision is in the journal before the first marker is written; a start carries on from there. The end itself and the
offsets it commits are one line of the journal. Rules follow Apache Kafka (KIP-98, KIP-360).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from driftloop.embedded.broker.batches import BatchHeader
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.journal import Journal, Key
from driftloop.embedded.broker.offsets import CommittedOffset, CommittedOffsets, Place, build_facts
from driftloop.embedded.broker.topics import Topic, Topics

# As transaction.max.timeout.ms and transactional.id.expiration.ms.
TIMEOUT_MS_MAX = 900_000
EXPIRY_MS = 604_800_000
# An epoch is an int16, and one must be left to fence the last producer.
EPOCH_MAX = 32_766
NO_EPOCH = -1


class State(StrEnum):
    """Kafka's names, as DescribeTransactions shows them."""

    EMPTY = "Empty"
    ONGOING = "Ongoing"
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"


@dataclass
class Transaction:
    """What is known of a transactional id; partitions are (topic id, index), offsets are by group."""

    id: str
    producer_id: int
    epoch: int
    last_epoch: int
    timeout_ms: int
    state: State
    changed_ms: int
    partitions: set[tuple[str, int]] = field(default_factory=set)
    offsets: dict[str, dict[Place, CommittedOffset]] = field(default_factory=dict)

    @property
    def is_ending(self) -> bool:
        return self.state in (State.PREPARE_COMMIT, State.PREPARE_ABORT)

    def dump(self) -> dict[str, Any]:
        fact = asdict(self)
        fact["partitions"] = sorted(self.partitions)
        fact["offsets"] = {
            group: [[*place, *committed] for place, committed in offsets.items()]
            for group, offsets in self.offsets.items()
        }
        return fact

    @classmethod
    def load(cls, fact: dict[str, Any]) -> "Transaction":
        partitions = {(topic_id, index) for topic_id, index in fact["partitions"]}
        offsets = {
            group: {(topic, index): CommittedOffset(*committed) for topic, index, *committed in rows}
            for group, rows in fact["offsets"].items()
        }
        return cls(**{**fact, "state": State(fact["state"]), "partitions": partitions, "offsets": offsets})


class TransactionCoordinator:
    """All transactional ids, and the producer ids of everyone."""

    def __init__(self, journal: Journal, topics: Topics, offsets: CommittedOffsets) -> None:
        self._journal = journal
        self._topics = topics
        self._offsets = offsets
        self.by_id = {str(key[1]): Transaction.load(fact) for key, fact in journal.select("transaction")}
        self._by_producer = {transaction.producer_id: transaction for transaction in self.by_id.values()}

    def finish_interrupted(self, now_ms: int) -> None:
        """Writes the markers of every end that was decided and not finished; for a start, and safe to repeat."""
        for transaction in self.by_id.values():
            if transaction.is_ending:
                self._complete(transaction, now_ms)

    def _save(self, transaction: Transaction, others: Mapping[Key, Any] | None = None) -> None:
        self._journal.put({("transaction", transaction.id): transaction.dump(), **(others or {})})

    def allocate_producer_id(self) -> int:
        """A producer id that was never given before."""
        key: Key = ("producer_id",)
        producer_id = int(self._journal.facts.get(key, 0)) + 1
        self._journal.put({key: producer_id})
        return producer_id

    # Beginning

    def begin_producer(
        self, transactional_id: str, timeout_ms: int, producer_id: int, epoch: int, now_ms: int
    ) -> Transaction:
        """Gives a transactional id its next epoch, so that every earlier producer of it is fenced.

        What the earlier one left open is aborted. `producer_id` and `epoch` are -1, or those of a producer that wants
        to carry on after an error (KIP-360).
        """
        if not transactional_id:
            raise Refusal(Code.INVALID_REQUEST, "a transactional id cannot be empty")
        if not 0 < timeout_ms <= TIMEOUT_MS_MAX:
            raise Refusal(Code.INVALID_TRANSACTION_TIMEOUT, f"a transaction may take 1 to {TIMEOUT_MS_MAX} ms")
        known = self.by_id.get(transactional_id)
        if known is None:
            known = Transaction(
                transactional_id, self.allocate_producer_id(), 0, NO_EPOCH, timeout_ms, State.EMPTY, now_ms
            )
            self.by_id[transactional_id] = self._by_producer[known.producer_id] = known
            self._save(known)
            return known
        carries_on = producer_id >= 0
        if carries_on and producer_id != known.producer_id:
            raise Refusal(Code.PRODUCER_FENCED, f"{transactional_id} is producer {known.producer_id} by now")
        if carries_on and epoch == known.last_epoch:
            return known  # The answer to its first attempt was lost.
        if carries_on and epoch != known.epoch:
            raise Refusal(Code.PRODUCER_FENCED, f"{transactional_id} is at epoch {known.epoch} by now")
        if known.state == State.ONGOING or known.is_ending:
            self._fence(known, now_ms)
        else:
            self._bump(known)
        known.last_epoch = epoch if carries_on else NO_EPOCH
        known.timeout_ms, known.state, known.changed_ms = timeout_ms, State.EMPTY, now_ms
        self._save(known)
        return known

    def _bump(self, transaction: Transaction) -> None:
        """The next epoch, or a new producer id when the epochs are used up."""
        if transaction.epoch < EPOCH_MAX:
            transaction.epoch += 1
            return
        del self._by_producer[transaction.producer_id]
        transaction.producer_id, transaction.epoch = self.allocate_producer_id(), 0
        self._by_producer[transaction.producer_id] = transaction

    def _fence(self, transaction: Transaction, now_ms: int) -> None:
        """Ends a transaction whose producer is gone; the markers carry the new epoch, so it stays gone."""
        if transaction.state == State.ONGOING:
            transaction.epoch += 1
            transaction.last_epoch = NO_EPOCH
            self._decide(transaction, False, now_ms)
        self._complete(transaction, now_ms)
        if transaction.epoch > EPOCH_MAX:
            self._bump(transaction)

    # During a transaction

    def get(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction:
        """The transaction of exactly this producer; refuses a fenced or unknown one."""
        transaction = self.by_id.get(transactional_id)
        if transaction is None or transaction.producer_id != producer_id:
            raise Refusal(Code.INVALID_PRODUCER_ID_MAPPING, f"{transactional_id} is not producer {producer_id}")
        if transaction.epoch != epoch:
            raise Refusal(Code.PRODUCER_FENCED, f"{transactional_id} is at epoch {transaction.epoch} by now")
        if transaction.is_ending:
            raise Refusal(Code.CONCURRENT_TRANSACTIONS, f"the last transaction of {transactional_id} is ending")
        return transaction

    def add_partitions(self, transaction: Transaction, places: list[tuple[Topic, int]], now_ms: int) -> None:
        """Lets the producer write to these partitions until the transaction ends."""
        added = {(str(topic.id), index) for topic, index in places}
        if transaction.state == State.ONGOING and added <= transaction.partitions:
            return
        self._continue(transaction, now_ms)
        transaction.partitions |= added
        self._save(transaction)

    def add_group(self, transaction: Transaction, now_ms: int) -> None:
        """Begins the transaction if need be; which group it is, its offsets will say."""
        if transaction.state != State.ONGOING:
            self._continue(transaction, now_ms)
            self._save(transaction)

    def add_offsets(self, transaction: Transaction, group: str, offsets: Mapping[Place, CommittedOffset]) -> None:
        """Keeps offsets that become the group's when the transaction commits."""
        if transaction.state != State.ONGOING:
            raise Refusal(Code.INVALID_TXN_STATE, f"{transaction.id} has no transaction")
        transaction.offsets.setdefault(group, {}).update(offsets)
        self._save(transaction)

    @staticmethod
    def _continue(transaction: Transaction, now_ms: int) -> None:
        if transaction.state != State.ONGOING:
            transaction.state, transaction.changed_ms = State.ONGOING, now_ms

    def validate_write(self, header: BatchHeader, topic: Topic, index: int) -> None:
        """Refuses a transactional batch outside its transaction: it would never be ended (KIP-890)."""
        transaction = self._by_producer.get(header.producer_id)
        if transaction is None:
            raise Refusal(Code.INVALID_PRODUCER_ID_MAPPING, f"producer {header.producer_id} has no transactional id")
        if transaction.epoch != header.producer_epoch:
            raise Refusal(Code.INVALID_PRODUCER_EPOCH, f"{transaction.id} is at epoch {transaction.epoch} by now")
        if transaction.state != State.ONGOING or (str(topic.id), index) not in transaction.partitions:
            message = f"{topic.name}-{index} is not part of a transaction of {transaction.id}"
            raise Refusal(Code.INVALID_TXN_STATE, message)

    def is_pending(self, group: str, place: Place) -> bool:
        """Whether an unfinished transaction may still change this group's offset."""
        return any(place in transaction.offsets.get(group, {}) for transaction in self.by_id.values())

    # Ending

    def end(self, transaction: Transaction, is_commit: bool, now_ms: int) -> None:
        """Commits or aborts; safe to repeat, refuses to turn one into the other."""
        complete = State.COMPLETE_COMMIT if is_commit else State.COMPLETE_ABORT
        if transaction.state == complete:
            return
        if transaction.state != State.ONGOING:
            raise Refusal(Code.INVALID_TXN_STATE, f"{transaction.id} is {transaction.state}, it cannot end")
        self._decide(transaction, is_commit, now_ms)
        self._complete(transaction, now_ms)

    def _decide(self, transaction: Transaction, is_commit: bool, now_ms: int) -> None:
        transaction.state = State.PREPARE_COMMIT if is_commit else State.PREPARE_ABORT
        transaction.changed_ms = now_ms
        self._save(transaction)

    def _complete(self, transaction: Transaction, now_ms: int) -> None:
        is_commit = transaction.state == State.PREPARE_COMMIT
        for topic_id, index in sorted(transaction.partitions):
            topic = self._topics.by_id.get(UUID(topic_id))
            if topic is not None:  # A deleted topic needs no end.
                log = topic.partitions[index]
                log.end_transaction(transaction.producer_id, transaction.epoch, is_commit, now_ms)
        offsets = self._select_live(transaction.offsets) if is_commit else {}
        transaction.state = State.COMPLETE_COMMIT if is_commit else State.COMPLETE_ABORT
        transaction.partitions, transaction.offsets = set(), {}
        facts: dict[Key, Any] = {}
        for group, group_offsets in offsets.items():
            facts.update(build_facts(group, group_offsets))
        self._save(transaction, facts)
        for group, group_offsets in offsets.items():
            self._offsets.note(group, group_offsets)

    def _select_live(self, offsets: dict[str, dict[Place, CommittedOffset]]) -> dict[str, dict[Place, CommittedOffset]]:
        """Without the offsets of topics that were deleted meanwhile."""
        return {
            group: {place: committed for place, committed in rows.items() if place[0] in self._topics.by_name}
            for group, rows in offsets.items()
        }

    def enforce_timeouts(self, now_ms: int) -> None:
        """Aborts what has been open too long, and forgets ids that nobody has used for a week."""
        for transaction in list(self.by_id.values()):
            age_ms = now_ms - transaction.changed_ms
            if transaction.state == State.ONGOING and age_ms > transaction.timeout_ms:
                self._fence(transaction, now_ms)
                self._save(transaction)
            elif transaction.is_ending:
                self._complete(transaction, now_ms)
            elif transaction.state != State.ONGOING and age_ms > EXPIRY_MS:
                del self.by_id[transaction.id], self._by_producer[transaction.producer_id]
                self._journal.put({("transaction", transaction.id): None})
