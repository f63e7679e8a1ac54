"""A consumer to be killed: `group_worker.py TOPIC SETTINGS`; writes what it owns and reads as JSON lines."""

import json
import signal
import sys
from typing import Any

from confluent_kafka import Consumer, TopicPartition


def report(*words: Any) -> None:
    print(json.dumps(words), flush=True)


def main(topic: str, settings: dict[str, Any]) -> None:
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    owned: set[int] = set()
    is_cooperative = settings.get("partition.assignment.strategy", "").startswith("cooperative")

    def take(consumer: Consumer, places: list[TopicPartition]) -> None:
        given = {place.partition for place in places}
        if not is_cooperative:
            owned.clear()
        owned.update(given)
        report("owned", sorted(owned))

    def give(consumer: Consumer, places: list[TopicPartition]) -> None:
        owned.difference_update(place.partition for place in places)
        report("owned", sorted(owned))

    consumer = Consumer(settings)
    consumer.subscribe([topic], on_assign=take, on_revoke=give, on_lost=give)
    while not stopping:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            report("message", message.partition(), message.offset())
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
