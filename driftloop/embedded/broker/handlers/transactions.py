"""Producers and transactions."""

from driftloop.embedded.broker.broker import Broker, now_ms
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.handlers import Call, Handler
from driftloop.embedded.broker.handlers.groups import answer_offsets, read_offsets
from driftloop.embedded.broker.topics import Topic, get_partition
from driftloop.embedded.broker.transactions import Transaction
from driftloop.embedded.broker.wire import Message

# Older clients know only INVALID_PRODUCER_EPOCH; interface by interface, since when they know PRODUCER_FENCED.
_FENCED_SINCE = {"InitProducerId": 4, "AddPartitionsToTxn": 2, "AddOffsetsToTxn": 2, "EndTxn": 2}


def _translate(refusal: Refusal, api: str, version: int) -> Code:
    """The refusal's code in the words of this version."""
    is_too_old = version < _FENCED_SINCE.get(api, 2**15)
    return Code.INVALID_PRODUCER_EPOCH if refusal.code == Code.PRODUCER_FENCED and is_too_old else refusal.code


def _get_transaction(broker: Broker, request: Message) -> Transaction:
    return broker.transactions.get(request["transactional_id"], request["producer_id"], request["producer_epoch"])


async def init_producer_id(broker: Broker, call: Call, request: Message) -> Message:
    if request["transactional_id"] is None:
        return {"producer_id": broker.transactions.allocate_producer_id(), "producer_epoch": 0}
    try:
        transaction = broker.transactions.begin_producer(
            request["transactional_id"],
            request["transaction_timeout_ms"],
            request["producer_id"],
            request["producer_epoch"],
            now_ms(),
        )
    except Refusal as refusal:
        return {"error_code": _translate(refusal, "InitProducerId", call.version), "producer_epoch": -1}
    return {"producer_id": transaction.producer_id, "producer_epoch": transaction.epoch}


async def add_partitions(broker: Broker, call: Call, request: Message) -> Message:
    """Adds all partitions or none: a transaction over half of what the producer asked for helps nobody."""
    places: list[tuple[Topic, int]] = []
    codes: dict[tuple[str, int], Code] = {}
    default = Code.NONE
    try:
        transaction = _get_transaction(broker, request)
        for topic in request["topics"]:
            for index in topic["partitions"]:
                try:
                    get_partition(broker.topics.get(topic["name"]), index)
                    places.append((broker.topics.get(topic["name"]), index))
                except Refusal as refusal:
                    codes[topic["name"], index] = refusal.code
        if codes:
            default = Code.OPERATION_NOT_ATTEMPTED
        else:
            broker.transactions.add_partitions(transaction, places, now_ms())
    except Refusal as refusal:
        default = _translate(refusal, "AddPartitionsToTxn", call.version)
    results = [
        {
            "name": topic["name"],
            "results_by_partition": [
                {"partition_index": index, "partition_error_code": codes.get((topic["name"], index), default)}
                for index in topic["partitions"]
            ],
        }
        for topic in request["topics"]
    ]
    return {"results_by_topic": results}


async def add_offsets(broker: Broker, call: Call, request: Message) -> Message:
    try:
        broker.transactions.add_group(_get_transaction(broker, request), now_ms())
    except Refusal as refusal:
        return {"error_code": _translate(refusal, "AddOffsetsToTxn", call.version)}
    return {}


async def end_transaction(broker: Broker, call: Call, request: Message) -> Message:
    try:
        broker.transactions.end(_get_transaction(broker, request), request["committed"], now_ms())
    except Refusal as refusal:
        return {"error_code": _translate(refusal, "EndTxn", call.version)}
    return {}


async def commit_offsets(broker: Broker, call: Call, request: Message) -> Message:
    topics = request["topics"]
    try:
        transaction = _get_transaction(broker, request)
        if request["generation_id"] >= 0 or request["member_id"]:
            broker.groups.validate_commit(
                request["group_id"], request["generation_id"], request["member_id"], request["group_instance_id"]
            )
        offsets, refused = read_offsets(broker, topics)
        broker.transactions.add_offsets(transaction, request["group_id"], offsets)
    except Refusal as refusal:
        return {"topics": answer_offsets(topics, {}, _translate(refusal, "TxnOffsetCommit", call.version))}
    return {"topics": answer_offsets(topics, refused, Code.NONE)}


async def describe_transactions(broker: Broker, call: Call, request: Message) -> Message:
    return {"transaction_states": [_describe_transaction(broker, name) for name in request["transactional_ids"]]}


def _describe_transaction(broker: Broker, transactional_id: str) -> Message:
    transaction = broker.transactions.by_id.get(transactional_id)
    if transaction is None:
        return {"transactional_id": transactional_id, "error_code": Code.TRANSACTIONAL_ID_NOT_FOUND}
    topics: dict[str, list[int]] = {}
    for topic_id, index in sorted(transaction.partitions):
        for topic in broker.topics.by_id.values():
            if str(topic.id) == topic_id:
                topics.setdefault(topic.name, []).append(index)
    return {
        "transactional_id": transactional_id,
        "transaction_state": transaction.state,
        "transaction_timeout_ms": transaction.timeout_ms,
        "transaction_start_time_ms": transaction.changed_ms if transaction.partitions else -1,
        "producer_id": transaction.producer_id,
        "producer_epoch": transaction.epoch,
        "topics": [{"topic": name, "partitions": indexes} for name, indexes in topics.items()],
    }


async def list_transactions(broker: Broker, call: Call, request: Message) -> Message:
    states, producer_ids = set(request["state_filters"]), set(request["producer_id_filters"])
    found = [
        transaction
        for transaction in broker.transactions.by_id.values()
        if (not states or transaction.state in states)
        and (not producer_ids or transaction.producer_id in producer_ids)
        and now_ms() - transaction.changed_ms >= request["duration_filter"]
    ]
    return {
        "transaction_states": [
            {"transactional_id": one.id, "producer_id": one.producer_id, "transaction_state": one.state}
            for one in found
        ]
    }


HANDLERS: dict[str, Handler] = {
    "InitProducerId": init_producer_id,
    "AddPartitionsToTxn": add_partitions,
    "AddOffsetsToTxn": add_offsets,
    "EndTxn": end_transaction,
    "TxnOffsetCommit": commit_offsets,
    "DescribeTransactions": describe_transactions,
    "ListTransactions": list_transactions,
}
