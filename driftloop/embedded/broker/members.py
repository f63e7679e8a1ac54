"""Members of consumer groups, and what passes between them and their group. Nothing here decides."""

import asyncio
from dataclasses import dataclass
from typing import Any, NamedTuple

from driftloop.embedded.broker.errors import Code, Refusal


class JoinRequest(NamedTuple):
    """What a member says of itself; protocols map an assignor's name to the member's subscription."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: dict[str, bytes]
    needs_known_id: bool
    can_skip_assignment: bool


class Joined(NamedTuple):
    """What a member learns when its generation begins; only the leader gets the members."""

    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member_id: str
    members: list["Member"]
    skip_assignment: bool = False


class MemberIdRequired(Refusal):
    """A new member is to come again with the id that it is given here."""

    def __init__(self, member_id: str) -> None:
        super().__init__(Code.MEMBER_ID_REQUIRED, "join again with the given member id")
        self.member_id = member_id


@dataclass(eq=False)
class Member:
    """One consumer; `joining` and `syncing` are there while it waits for an answer."""

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: dict[str, bytes]
    assignment: bytes = b""
    joining: asyncio.Future[None] | None = None
    syncing: asyncio.Future[None] | None = None
    timer: asyncio.TimerHandle | None = None

    def update(self, request: JoinRequest) -> None:
        self.client_id, self.client_host = request.client_id, request.client_host
        self.session_timeout_ms = request.session_timeout_ms
        self.rebalance_timeout_ms = request.rebalance_timeout_ms
        self.protocols = request.protocols

    def stop(self, refusal: Refusal | None = None) -> None:
        """Ends the member's timer, and whatever it waits for with this refusal."""
        if self.timer:
            self.timer.cancel()
        for waiting in (self.joining, self.syncing):
            if refusal and waiting and not waiting.done():
                waiting.set_exception(refusal)

    def dump(self) -> dict[str, Any]:
        """The member as JSON values."""
        return {
            "id": self.id,
            "instance_id": self.instance_id,
            "client_id": self.client_id,
            "client_host": self.client_host,
            "session_timeout_ms": self.session_timeout_ms,
            "rebalance_timeout_ms": self.rebalance_timeout_ms,
            "protocols": {name: metadata.hex() for name, metadata in self.protocols.items()},
            "assignment": self.assignment.hex(),
        }

    @classmethod
    def load(cls, dump: dict[str, Any]) -> "Member":
        """A stored member, without a timer."""
        protocols = {name: bytes.fromhex(text) for name, text in dump["protocols"].items()}
        return cls(**{**dump, "protocols": protocols, "assignment": bytes.fromhex(dump["assignment"])})
