"""Writing to the log, so that what `flush` has let through is in it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as LibrdkafkaProducer

from schemas.connections import KafkaConnection
from schemas.errors import Retryable

Headers = Sequence[tuple[str, bytes]]

# Long enough for a broker that restarts, short enough that a caller's own deadline decides.
_DELIVERY_TIMEOUT_MS = 60_000
_FULL_TIMEOUT_S = 60.0


class Producer:
    """Sends messages, idempotently and acknowledged by all replicas; keys go where Java clients put them (murmur2).

    Not safe for several threads at the same time between `produce` and `flush`.
    """

    def __init__(self, kafka: KafkaConnection, **options: Any) -> None:
        self._producer = LibrdkafkaProducer(
            {"log_level": 2}
            | kafka.librdkafka(
                partitioner="murmur2_random",
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
                # Retried inside; what is left undelivered is raised by `flush`.
                **options,
            )
        )
        self._errors: list[str] = []

    def produce(
        self,
        topic: str,
        key: bytes | str | None,
        value: bytes | None,
        headers: Headers | None = None,
        partition: int | None = None,
        on_delivered: Callable[[int, int], None] | None = None,
    ) -> None:
        """Queue one message; `on_delivered(partition, offset)` is called from `flush` or a later `produce`.

        Waits while the queue is full; raises `Retryable` when it stays full.
        """

        def report(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self._errors.append(f"{topic}: {error.str()}")
            elif on_delivered is not None:
                on_delivered(message.partition(), message.offset())

        place = {} if partition is None else {"partition": partition}
        deadline_s = time.monotonic() + _FULL_TIMEOUT_S
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=list(headers) if headers else None, on_delivery=report, **place
                )
                self._producer.poll(0)
                return
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise Retryable(f"the queue to topic {topic} stayed full for {_FULL_TIMEOUT_S:.0f} s") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Retryable(f"cannot send to topic {topic}: {error}") from error

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything produced is in the log; raises `Retryable` naming what is not."""
        undelivered = self._producer.flush(timeout_s)
        errors, self._errors = self._errors, []
        if errors:
            raise Retryable(f"{len(errors)} messages were not delivered, the first: {errors[0]}")
        if undelivered:
            raise Retryable(f"{undelivered} messages were not delivered within {timeout_s:g} s")

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush what is queued, and forget what cannot be sent in time."""
        self._producer.flush(timeout_s)
        self._producer.purge()
