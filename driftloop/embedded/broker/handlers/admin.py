"""Topics, partitions, configurations and the cluster."""

from collections import Counter
from collections.abc import Callable
from enum import IntEnum

from driftloop.embedded.broker.broker import NODE_ID, Broker
from driftloop.embedded.broker.configs import OPTIONS, Kind, Source, TopicConfig
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.handlers import Call, Handler
from driftloop.embedded.broker.topics import DEFAULT_PARTITIONS, Topic
from driftloop.embedded.broker.wire import NO_ID, Message

TOPIC, BROKER = 2, 4


class Operation(IntEnum):
    """How IncrementalAlterConfigs changes a value; the last two are for lists."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


def _attempt(answer: Message, action: Callable[[], Message | None]) -> Message:
    """The answer with what the action adds to it, or with the reason why it refused."""
    try:
        return {**answer, **(action() or {})}
    except Refusal as refusal:
        return {**answer, "error_code": refusal.code, "error_message": refusal.message}


def _refuse_repeated(names: list[str]) -> Callable[[str], None]:
    counts = Counter(names)

    def validate(name: str) -> None:
        if counts[name] > 1:
            raise Refusal(Code.INVALID_REQUEST, f"the request names topic {name} {counts[name]} times")

    return validate


async def create_topics(broker: Broker, call: Call, request: Message) -> Message:
    validate = _refuse_repeated([topic["name"] for topic in request["topics"]])

    def create(asked: Message) -> Message:
        validate(asked["name"])
        num_partitions = _count_partitions(asked)
        overrides = {config["name"]: config["value"] for config in asked["configs"]}
        topic = broker.topics.create(asked["name"], num_partitions, overrides, request["validate_only"])
        return {
            "topic_id": NO_ID if request["validate_only"] else topic.id,
            "num_partitions": len(topic.partitions) or num_partitions,
            "replication_factor": 1,
            "configs": [
                {"name": name, "value": value, "config_source": source}
                for name, value, _, source, _ in topic.config.describe(None)
            ],
        }

    return {
        "topics": [
            _attempt({"name": asked["name"]}, lambda asked=asked: create(asked))  # type: ignore[misc]
            for asked in request["topics"]
        ]
    }


def _count_partitions(asked: Message) -> int:
    """How many partitions a CreateTopics request wants, all of them on this node."""
    assignments = asked["assignments"]
    if not assignments:
        if asked["replication_factor"] not in (-1, 1):
            message = f"replication factor {asked['replication_factor']} is more than the one broker there is"
            raise Refusal(Code.INVALID_REPLICATION_FACTOR, message)
        return int(asked["num_partitions"])
    indexes = sorted(assignment["partition_index"] for assignment in assignments)
    if indexes != list(range(len(indexes))) or any(one["broker_ids"] != [NODE_ID] for one in assignments):
        raise Refusal(Code.INVALID_REPLICA_ASSIGNMENT, f"partitions count from 0, and all are on broker {NODE_ID}")
    return len(indexes)


async def delete_topics(broker: Broker, call: Call, request: Message) -> Message:
    """By name up to version 5, by name or id from 6 on."""
    asked = request["topics"] or [{"name": name, "topic_id": NO_ID} for name in request["topic_names"]]

    def delete(one: Message) -> Message:
        by_id = one["topic_id"] != NO_ID
        topic = broker.topics.get_by_id(one["topic_id"]) if by_id else broker.topics.get(one["name"] or "")
        broker.delete_topic(topic)
        return {"name": topic.name, "topic_id": topic.id}

    return {"responses": [_attempt(one, lambda one=one: delete(one)) for one in asked]}  # type: ignore[misc]


async def create_partitions(broker: Broker, call: Call, request: Message) -> Message:
    def create(asked: Message) -> None:
        if any(one["broker_ids"] != [NODE_ID] for one in asked["assignments"] or ()):
            raise Refusal(Code.INVALID_REPLICA_ASSIGNMENT, f"all partitions are on broker {NODE_ID}")
        broker.topics.add_partitions(broker.topics.get(asked["name"]), asked["count"], request["validate_only"])

    return {
        "results": [
            _attempt({"name": asked["name"]}, lambda asked=asked: create(asked))  # type: ignore[misc]
            for asked in request["topics"]
        ]
    }


async def delete_records(broker: Broker, call: Call, request: Message) -> Message:
    def delete(name: str, partition: Message) -> Message:
        topic = broker.topics.get(name)
        index = partition["partition_index"]
        return {"low_watermark": broker.topics.delete_records(topic, index, partition["offset"])}

    def answer(name: str, partition: Message) -> Message:
        head = {"partition_index": partition["partition_index"], "low_watermark": -1}
        return _attempt(head, lambda: delete(name, partition))

    return {
        "topics": [
            {"name": topic["name"], "partitions": [answer(topic["name"], one) for one in topic["partitions"]]}
            for topic in request["topics"]
        ]
    }


async def describe_configs(broker: Broker, call: Call, request: Message) -> Message:
    def describe(asked: Message) -> Message:
        names = asked["configuration_keys"]
        if asked["resource_type"] == TOPIC:
            return {"configs": _describe_topic_configs(broker.topics.get(asked["resource_name"]).config, names)}
        if asked["resource_type"] == BROKER and asked["resource_name"] in ("", str(NODE_ID)):
            return {"configs": _describe_broker_configs(broker, names)}
        raise Refusal(Code.INVALID_REQUEST, f"no such resource: {asked['resource_type']} {asked['resource_name']!r}")

    return {"results": [_answer_resource(asked, describe) for asked in request["resources"]]}


def _answer_resource(asked: Message, action: Callable[[Message], Message | None]) -> Message:
    head = {
        "resource_type": asked["resource_type"],
        "resource_name": asked["resource_name"],
        "error_message": None,
        "configs": [],
    }
    return _attempt(head, lambda: action(asked))


def _describe_topic_configs(config: TopicConfig, names: list[str] | None) -> list[Message]:
    return [
        {
            "name": name,
            "value": value,
            "config_source": source,
            "config_type": kind,
            "documentation": meaning,
            "synonyms": [{"name": name, "value": value, "source": source}],
        }
        for name, value, kind, source, meaning in config.describe(names)
    ]


def _describe_broker_configs(broker: Broker, names: list[str] | None) -> list[Message]:
    """What administrators look for; none of it can be changed while the broker runs."""
    values = {
        "auto.create.topics.enable": ("false", Kind.BOOLEAN),
        "default.replication.factor": ("1", Kind.INT),
        "delete.topic.enable": ("true", Kind.BOOLEAN),
        "listeners": (f"PLAINTEXT://{broker.host}:{broker.port}", Kind.STRING),
        "log.retention.ms": (OPTIONS["retention.ms"].default, Kind.LONG),
        "log.segment.bytes": (OPTIONS["segment.bytes"].default, Kind.INT),
        "message.max.bytes": (OPTIONS["max.message.bytes"].default, Kind.INT),
        "node.id": (str(NODE_ID), Kind.INT),
        "num.partitions": (str(DEFAULT_PARTITIONS), Kind.INT),
    }
    return [
        {
            "name": name,
            "value": value,
            "read_only": True,
            "config_source": Source.STATIC_BROKER,
            "config_type": kind,
            "documentation": None,
        }
        for name, (value, kind) in values.items()
        if names is None or name in names
    ]


def _get_configurable(broker: Broker, asked: Message) -> Topic:
    if asked["resource_type"] != TOPIC:
        raise Refusal(Code.INVALID_REQUEST, "only the configurations of topics can be changed")
    return broker.topics.get(asked["resource_name"])


async def alter_configs(broker: Broker, call: Call, request: Message) -> Message:
    """Replaces all of a topic's configurations: what the request leaves out goes back to its default."""

    def alter(asked: Message) -> None:
        topic = _get_configurable(broker, asked)
        overrides = {config["name"]: config["value"] for config in asked["configs"]}
        broker.topics.configure(topic, overrides, request["validate_only"])

    return {"responses": [_answer_resource(asked, alter) for asked in request["resources"]]}


async def incremental_alter_configs(broker: Broker, call: Call, request: Message) -> Message:
    def alter(asked: Message) -> None:
        topic = _get_configurable(broker, asked)
        overrides: dict[str, str | None] = dict(topic.config.overrides)
        for change in asked["configs"]:
            _change_option(overrides, change["name"], change["config_operation"], change["value"])
        broker.topics.configure(topic, overrides, request["validate_only"])

    return {"responses": [_answer_resource(asked, alter) for asked in request["resources"]]}


def _change_option(overrides: dict[str, str | None], name: str, operation: int, value: str | None) -> None:
    """Applies one change to the overrides, in place."""
    if operation == Operation.DELETE:
        overrides.pop(name, None)
        return
    if operation == Operation.SET:
        overrides[name] = value
        return
    option = OPTIONS.get(name)
    if option is None or option.kind != Kind.LIST or operation not in (Operation.APPEND, Operation.SUBTRACT):
        raise Refusal(Code.INVALID_CONFIG, f"{name} is no list that one can append to or subtract from")
    words = [word for word in (overrides.get(name) or option.default).split(",") if word]
    changed = (value or "").split(",")
    if operation == Operation.APPEND:
        words += [word for word in changed if word not in words]
    else:
        words = [word for word in words if word not in changed]
    overrides[name] = ",".join(words)


async def describe_cluster(broker: Broker, call: Call, request: Message) -> Message:
    return {
        "cluster_id": broker.cluster_id,
        "controller_id": NODE_ID,
        "brokers": [{"broker_id": NODE_ID, "host": broker.host, "port": broker.port}],
    }


HANDLERS: dict[str, Handler] = {
    "CreateTopics": create_topics,
    "DeleteTopics": delete_topics,
    "CreatePartitions": create_partitions,
    "DeleteRecords": delete_records,
    "DescribeConfigs": describe_configs,
    "AlterConfigs": alter_configs,
    "IncrementalAlterConfigs": incremental_alter_configs,
    "DescribeCluster": describe_cluster,
}
