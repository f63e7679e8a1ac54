"""Delivering to one receiver: in order, with retries, without holding back any other receiver."""

import email.utils
import logging
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC

import httpx

from consumers.webhooks import sign_headers
from schemas.clock import Clock
from schemas.errors import Retryable
from schemas.events import Alert
from store.subscriptions import Attempt, Outcome, Subscription

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often: waits double from `first_s` to `max_s`, each drawn from its upper half.

    With the defaults a receiver that is away gets some 70 attempts within the hour.
    """

    first_s: float = 1.0
    max_s: float = 60.0
    deadline_s: float = 3600.0
    answer_s: float = 10.0

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after the n-th attempt (from 1)."""
        longest_s = min(self.first_s * 2.0 ** min(attempt - 1, 30), self.max_s)
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, protects nothing


@dataclass(frozen=True, slots=True)
class Delivery:
    """One state change on its way to one subscription; `finish` is called once it needs no further attempt.

    `place` is where the state change stands in the log: topic, partition, offset.
    """

    webhook_id: str
    alert: Alert
    body: bytes
    place: tuple[str, int, int]
    finish: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a receiver's worker puts what came of it; all of them may block, and raise `Retryable`."""

    record: Callable[[Attempt], None]
    disable: Callable[[str, str], None]
    give_up: Callable[[Delivery, str], None]


class Receiver:
    """A thread that delivers to one subscription, one delivery after the other, from a bounded queue."""

    QUEUE_MAX = 1000

    def __init__(
        self, subscription: Subscription, policy: RetryPolicy, outlets: Outlets, clock: Clock, stop: threading.Event
    ) -> None:
        self.subscription = subscription
        self._policy = policy
        self._outlets = outlets
        self._clock = clock
        self._stop = stop
        self._queue: queue.Queue[Delivery] = queue.Queue(self.QUEUE_MAX)
        self._closed = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run_or_fail, name=f"deliver-{subscription.name}", daemon=True)
        self._thread.start()

    def offer(self, delivery: Delivery) -> bool:
        """Queue a delivery; False when the queue is full."""
        try:
            self._queue.put_nowait(delivery)
        except queue.Full:
            return False
        return True

    def refuse(self, delivery: Delivery) -> None:
        """Give up a delivery for which there is no room; an answer that never comes must not stop the others."""
        error = f"{self.subscription.name}: {self.QUEUE_MAX} deliveries are waiting for this receiver already"
        attempt = make_attempt(delivery, self.subscription.name, "given_up", error, self._clock.now_ms())
        log.warning("%s", error)

        def settle() -> None:
            self._outlets.give_up(delivery, error)
            self._outlets.record(attempt)

        self._persist(settle)
        if not self._stop.is_set():
            delivery.finish()

    def close(self) -> None:
        """Drop what is queued: the subscription was removed or disabled."""
        self._closed.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread after `stop` was set."""
        self._thread.join(timeout_s)

    def _run_or_fail(self) -> None:
        try:
            self._run()
        except Exception as error:
            # The notifier raises it: a receiver that nobody serves must not go unnoticed.
            self.failure = error

    def _run(self) -> None:
        with httpx.Client(timeout=self._policy.answer_s, follow_redirects=False) as client:
            while not self._stop.is_set():
                try:
                    delivery = self._queue.get(timeout=0.2)
                except queue.Empty:
                    if self._closed.is_set():
                        return
                    continue
                if self._closed.is_set():
                    log.warning("%s is closed: %s is not sent", self.subscription.name, delivery.webhook_id)
                    delivery.finish()
                else:
                    self._deliver(client, delivery)

    def _deliver(self, client: httpx.Client, delivery: Delivery) -> None:
        """Try until it is delivered, the deadline has passed, or the receiver is gone for good."""
        deadline_s = self._clock.monotonic_s() + self._policy.deadline_s
        attempt = 0
        while not self._stop.is_set() and not self._closed.is_set():
            attempt += 1
            started_s = self._clock.monotonic_s()
            status_code, error, wait_s = self._post(client, delivery, attempt)
            is_late = self._clock.monotonic_s() + wait_s > deadline_s
            outcome = _outcome(status_code, is_late)
            duration_ms = int((self._clock.monotonic_s() - started_s) * 1000)
            self._persist(lambda: self._settle(delivery, outcome, status_code, error, attempt, duration_ms))  # noqa: B023
            if self._stop.is_set():
                return
            if outcome != "failed":
                delivery.finish()
                return
            self._pause(wait_s)
        if self._closed.is_set():
            delivery.finish()

    def _post(self, client: httpx.Client, delivery: Delivery, attempt: int) -> tuple[int, str, float]:
        """Status code (0: no answer), what went wrong, and how long to wait before the next attempt."""
        now_s = self._clock.now_ms() // 1000
        headers = sign_headers(self.subscription.secret, delivery.webhook_id, delivery.body, now_s)
        headers |= {"content-type": "application/json", "user-agent": "driftloop"}
        wait_s = self._policy.wait_s(attempt)
        try:
            # Streamed and not read: only the status counts, and an endless answer must not fill the memory.
            with client.stream("POST", self.subscription.url, content=delivery.body, headers=headers) as response:
                status_code = response.status_code
                asked_s = _read_retry_after(response.headers.get("retry-after", ""), self._clock.now_ms() / 1000)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return 0, f"{type(error).__name__}: {error}"[:500], wait_s
        if 200 <= status_code < 300:
            return status_code, "", 0.0
        if status_code in (429, 503) and asked_s is not None:
            wait_s = max(wait_s, asked_s)
        return status_code, f"HTTP {status_code}", wait_s

    def _settle(
        self, delivery: Delivery, outcome: Outcome, status_code: int, error: str, attempt: int, duration_ms: int
    ) -> None:
        """Do what an attempt's outcome asks for, and record the attempt last: a recorded outcome is a finished one."""
        name = self.subscription.name
        if outcome == "disabled":
            self._outlets.disable(name, "the receiver answered 410 Gone")
            self.close()
        elif outcome == "given_up":
            self._outlets.give_up(delivery, f"{name}: {attempt} attempts, the last one: {error}")
        if outcome != "delivered":
            log.warning("%s: attempt %d of %s: %s (%s)", name, attempt, delivery.webhook_id, error, outcome)
        self._outlets.record(
            make_attempt(delivery, name, outcome, error, self._clock.now_ms(), status_code, attempt, duration_ms)
        )

    def _persist(self, action: Callable[[], None]) -> None:
        """Repeat while the store or the log is away; left undone only at `stop`, and then delivered again later."""
        wait_s = 0.1
        while not self._stop.is_set():
            try:
                action()
                return
            except Retryable as error:
                log.warning("%s waits: %s", self.subscription.name, error)
                self._stop.wait(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    def _pause(self, seconds: float) -> None:
        deadline_s = self._clock.monotonic_s() + seconds
        while not self._closed.is_set() and (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            if self._stop.wait(min(left_s, 0.2)):
                return


def make_attempt(
    delivery: Delivery,
    subscription: str,
    outcome: Outcome,
    error: str,
    at_ms: int,
    status_code: int = 0,
    attempt: int = 0,
    duration_ms: int = 0,
) -> Attempt:
    """The row of one attempt; attempt 0 is a delivery that was given up without one."""
    return Attempt(
        subscription=subscription,
        model=delivery.alert.model,
        alert_id=delivery.alert.alert_id,
        transition_id=delivery.alert.transition_id,
        webhook_id=delivery.webhook_id,
        status_code=status_code,
        outcome=outcome,
        error=error,
        attempt=attempt,
        duration_ms=duration_ms,
        at=at_ms,
    )


def _outcome(status_code: int, is_late: bool) -> Outcome:
    if 200 <= status_code < 300:
        return "delivered"
    if status_code == 410:
        return "disabled"
    return "given_up" if is_late else "failed"


def _read_retry_after(value: str, now_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number of them, or a date."""
    value = value.strip()
    if value.isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(date.timestamp() - now_s, 0.0)
