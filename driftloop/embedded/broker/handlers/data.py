"""Produce, Fetch, ListOffsets and Metadata."""

import asyncio
from typing import Any

from driftloop.embedded.broker.broker import NODE_ID, Broker, now_ms
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.handlers import Call, Handler
from driftloop.embedded.broker.log import Log
from driftloop.embedded.broker.topics import Topic, get_partition, validate_name
from driftloop.embedded.broker.wire import NO_ID, Message

# Apache Kafka's fetch.max.bytes: what one response may hold, whatever the client asks for.
FETCH_BYTES_MAX = 57_671_680
READ_COMMITTED = 1
LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3


async def produce(broker: Broker, call: Call, request: Message) -> Message | None:
    if request["acks"] not in (-1, 0, 1):
        refusal = Refusal(Code.INVALID_REQUIRED_ACKS, f"acks cannot be {request['acks']}")
        answers = [
            {"name": topic["name"], "partition_responses": [_refuse_batch(p, refusal) for p in topic["partition_data"]]}
            for topic in request["topic_data"]
        ]
        return {"responses": answers}
    answers = [
        {
            "name": topic["name"],
            "partition_responses": [
                _append_batch(broker, topic["name"], partition) for partition in topic["partition_data"]
            ],
        }
        for topic in request["topic_data"]
    ]
    return {"responses": answers} if request["acks"] else None


def _append_batch(broker: Broker, name: str, partition: Message) -> Message:
    index = partition["index"]
    try:
        topic = broker.topics.get(name)
        log = get_partition(topic, index)
        appended = log.append(
            partition["records"] or b"",
            now_ms(),
            lambda header: broker.transactions.validate_write(header, topic, index),
        )
    except Refusal as refusal:
        return _refuse_batch(partition, refusal)
    return {
        "index": index,
        "base_offset": appended.base_offset,
        "log_append_time_ms": appended.append_time_ms,
        "log_start_offset": log.start_offset,
    }


def _refuse_batch(partition: Message, refusal: Refusal) -> Message:
    return {
        "index": partition["index"],
        "error_code": refusal.code,
        "base_offset": -1,
        "error_message": refusal.message,
    }


async def fetch(broker: Broker, call: Call, request: Message) -> Message:
    """Answers when `min_bytes` are there, when the client's wait is over, or at once when a partition is refused."""
    if request["session_id"]:
        return {"error_code": Code.FETCH_SESSION_ID_NOT_FOUND}  # We never give one: every fetch names its partitions.
    loop = asyncio.get_running_loop()
    deadline = loop.time() + max(request["max_wait_ms"], 0) / 1000
    while True:
        topics, num_bytes, is_refused = _read_topics(broker, call, request)
        remaining_s = deadline - loop.time()
        if num_bytes >= request["min_bytes"] or is_refused or remaining_s <= 0:
            return {"responses": topics}
        await _wait_for_append(_find_logs(broker, request), remaining_s)


def _find_topic(broker: Broker, asked: Message) -> Topic:
    """By id where the version has ids, by name elsewhere."""
    return (
        broker.topics.get_by_id(asked["topic_id"]) if asked["topic_id"] != NO_ID else broker.topics.get(asked["topic"])
    )


def _find_logs(broker: Broker, request: Message) -> list[Log]:
    """The partitions of a request that was just found to be right."""
    return [
        get_partition(_find_topic(broker, asked), partition["partition"])
        for asked in request["topics"]
        for partition in asked["partitions"]
    ]


async def _wait_for_append(logs: list[Log], timeout_s: float) -> None:
    appended = asyncio.Event()
    for log in logs:
        log.on_append.add(appended.set)
    try:
        await asyncio.wait_for(appended.wait(), timeout_s)
    except TimeoutError:
        pass  # Then the answer is empty, as the client asked for.
    finally:
        for log in logs:
            log.on_append.discard(appended.set)


def _read_topics(broker: Broker, call: Call, request: Message) -> tuple[list[Message], int, bool]:
    """The response's topics, the bytes of records in them, and whether any partition was refused."""
    is_committed = request["isolation_level"] == READ_COMMITTED
    budget = min(request["max_bytes"], FETCH_BYTES_MAX)
    num_bytes, is_refused, topics = 0, False, []
    for asked in request["topics"]:
        partitions = []
        for partition in asked["partitions"]:
            try:
                log = get_partition(_find_topic(broker, asked), partition["partition"])
                answer = _read_partition(log, partition, budget - num_bytes, is_committed, num_bytes == 0)
                num_bytes += len(answer["records"])
            except Refusal as refusal:
                is_refused = True
                answer = _refuse_partition(partition, refusal)
            partitions.append(answer)
        topics.append({"topic": asked["topic"], "topic_id": asked["topic_id"], "partitions": partitions})
    return topics, num_bytes, is_refused


def _read_partition(log: Log, partition: Message, budget: int, is_committed: bool, is_first: bool) -> Message:
    offset = partition["fetch_offset"]
    if not log.start_offset <= offset <= log.end_offset:
        message = f"offset {offset} is outside {log.start_offset} to {log.end_offset}"
        raise Refusal(Code.OFFSET_OUT_OF_RANGE, message)
    limit = log.stable_offset if is_committed else log.end_offset
    max_bytes = min(partition["partition_max_bytes"], budget)
    data = log.read(offset, max_bytes, limit, is_first) if offset < limit and (budget > 0 or is_first) else b""
    aborted = log.find_aborted(offset, data) if is_committed else []
    return {
        "partition_index": partition["partition"],
        "high_watermark": log.end_offset,
        "last_stable_offset": log.stable_offset,
        "log_start_offset": log.start_offset,
        "aborted_transactions": [{"producer_id": a.producer_id, "first_offset": a.first_offset} for a in aborted],
        "records": data,
    }


def _refuse_partition(partition: Message, refusal: Refusal) -> Message:
    return {
        "partition_index": partition["partition"],
        "error_code": refusal.code,
        "high_watermark": -1,
        "aborted_transactions": [],
        "records": b"",
    }


async def list_offsets(broker: Broker, call: Call, request: Message) -> Message:
    is_committed = request["isolation_level"] == READ_COMMITTED
    topics = [
        {
            "name": topic["name"],
            "partitions": [
                _list_offset(broker, topic["name"], partition, is_committed) for partition in topic["partitions"]
            ],
        }
        for topic in request["topics"]
    ]
    return {"topics": topics}


def _list_offset(broker: Broker, name: str, partition: Message, is_committed: bool) -> Message:
    answer: dict[str, Any] = {"partition_index": partition["partition_index"], "leader_epoch": 0}
    try:
        log = broker.topics.get_log(name, partition["partition_index"])
        limit = log.stable_offset if is_committed else log.end_offset
        timestamp_ms, offset = _find_offset(log, partition["timestamp"], limit)
    except Refusal as refusal:
        return {**answer, "error_code": refusal.code, "leader_epoch": -1}
    return {**answer, "timestamp": timestamp_ms, "offset": offset}


def _find_offset(log: Log, timestamp_ms: int, limit: int) -> tuple[int, int]:
    """Time and offset for a time, or for one of Kafka's special values; -1 and -1 where there is no such record."""
    if timestamp_ms == LATEST:
        return -1, limit
    if timestamp_ms == EARLIEST:
        return -1, log.start_offset
    if timestamp_ms < MAX_TIMESTAMP:
        raise Refusal(Code.UNSUPPORTED_VERSION, f"{timestamp_ms} stands for no offset here")
    found = log.find_latest_time(limit) if timestamp_ms == MAX_TIMESTAMP else log.find_time(timestamp_ms, limit)
    return (-1, -1) if found is None else (found[1], found[0])


async def metadata(broker: Broker, call: Call, request: Message) -> Message:
    asked = request["topics"]
    # Version 0 has no null: there an empty list asks for all topics.
    if asked is None or (call.version == 0 and not asked):
        topics = [_describe_topic(topic) for topic in broker.topics.by_name.values()]
    else:
        topics = [_look_up_topic(broker, one) for one in asked]
    return {
        "brokers": [{"node_id": NODE_ID, "host": broker.host, "port": broker.port}],
        "cluster_id": broker.cluster_id,
        "controller_id": NODE_ID,
        "topics": topics,
    }


def _look_up_topic(broker: Broker, asked: Message) -> Message:
    name, topic_id = asked["name"], asked["topic_id"]
    try:
        if topic_id != NO_ID:
            return _describe_topic(broker.topics.get_by_id(topic_id))
        validate_name(name or "")
        return _describe_topic(broker.topics.get(name))
    except Refusal as refusal:
        return {"error_code": refusal.code, "name": name if topic_id == NO_ID else None, "topic_id": topic_id}


def _describe_topic(topic: Topic) -> Message:
    partitions = [
        {
            "partition_index": index,
            "leader_id": NODE_ID,
            "leader_epoch": 0,
            "replica_nodes": [NODE_ID],
            "isr_nodes": [NODE_ID],
        }
        for index in range(len(topic.partitions))
    ]
    return {"name": topic.name, "topic_id": topic.id, "partitions": partitions}


HANDLERS: dict[str, Handler] = {
    "Produce": produce,
    "Fetch": fetch,
    "ListOffsets": list_offsets,
    "Metadata": metadata,
}
