"""One consumer group: the classic rebalance protocol as a state machine.

    EMPTY ──join──► PREPARING ──all joined──► COMPLETING ──leader synced──► STABLE
                        ▲                          │                          │
                        └────────── join, leave, session expired ─────────────┘

Rules follow Apache Kafka's group coordinator (KIP-62, KIP-345 static members, KIP-394 known member ids). A group knows
nothing of offsets. All methods run on the event loop; those that wait are coroutines.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.members import Joined, JoinRequest, Member, MemberIdRequired

# Kafka waits 3 s for more members of a new group; on one machine they come together, and a demo should not wait.
INITIAL_DELAY_S = 0.15
MAX_MEMBERS = 1000
NO_GENERATION = -1


class State(StrEnum):
    """Kafka's names, as DescribeGroups shows them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass
class Group:
    """A consumer group; `on_change` is called when its membership is settled, so that it can be stored."""

    id: str
    on_change: Callable[["Group"], None]
    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    pending_ids: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _phase_timer: asyncio.TimerHandle | None = None
    _is_delayed: bool = False

    # Joining

    async def join(self, request: JoinRequest) -> Joined:
        """Waits until the next generation begins, and tells the member its part in it."""
        self._validate_join(request)
        if not request.member_id:
            member = self._admit_unknown(request)
        else:
            member = self._admit_known(request)
        if isinstance(member, Joined):
            return member
        if self.state in (State.EMPTY, State.STABLE, State.COMPLETING):
            self._prepare()
        if member.joining and not member.joining.done():
            member.joining.set_exception(Refusal(Code.REBALANCE_IN_PROGRESS, "the member joined again"))
        await self._wait_joined(member)
        return self._describe_joined(member)

    async def _wait_joined(self, member: Member) -> None:
        """Waits for the generation; a client that goes away meanwhile counts as silent from then on."""
        waiting = member.joining = asyncio.get_running_loop().create_future()
        self._finish_if_complete()
        try:
            await waiting
        finally:
            if member.joining is waiting:
                member.joining = None
                if member.id in self.members:
                    self.touch(member)

    def _validate_join(self, request: JoinRequest) -> None:
        others = [member for member in self.members.values() if member.id != request.member_id]
        if others and request.protocol_type != self.protocol_type:
            message = f"the group is of type {self.protocol_type!r}, not {request.protocol_type!r}"
            raise Refusal(Code.INCONSISTENT_GROUP_PROTOCOL, message)
        if not request.protocols or not request.protocol_type:
            raise Refusal(Code.INCONSISTENT_GROUP_PROTOCOL, "a member needs a protocol type and an assignor")
        if others and not any(all(name in other.protocols for other in others) for name in request.protocols):
            raise Refusal(Code.INCONSISTENT_GROUP_PROTOCOL, "no assignor that all members have")
        if not request.member_id and len(self.members) + len(self.pending_ids) >= MAX_MEMBERS:
            raise Refusal(Code.GROUP_MAX_SIZE_REACHED, f"a group has at most {MAX_MEMBERS} members")

    def _admit_unknown(self, request: JoinRequest) -> Member | Joined:
        member_id = f"{request.instance_id or request.client_id}-{uuid.uuid4()}"
        if request.instance_id is not None:
            previous = self.find_static(request.instance_id)
            if previous is not None:
                return self._replace_static(previous, member_id, request)
        elif request.needs_known_id:
            self._add_pending(member_id, request.session_timeout_ms / 1000)
            raise MemberIdRequired(member_id)
        return self._add(member_id, request)

    def _admit_known(self, request: JoinRequest) -> Member | Joined:
        pending = self.pending_ids.pop(request.member_id, None)
        if pending is not None:
            pending.cancel()
            return self._add(request.member_id, request)
        member = self.get_member(request.member_id, request.instance_id)
        is_same = member.protocols == request.protocols
        member.update(request)
        self.touch(member)
        is_settled = self.state == State.COMPLETING or (self.state == State.STABLE and member.id != self.leader)
        return self._describe_joined(member) if is_same and is_settled else member

    def _add_pending(self, member_id: str, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.pending_ids[member_id] = loop.call_later(timeout_s, self._drop_pending, member_id)

    def _drop_pending(self, member_id: str) -> None:
        del self.pending_ids[member_id]
        self._finish_if_complete()

    def _add(self, member_id: str, request: JoinRequest) -> Member:
        member = Member(
            member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.session_timeout_ms,
            request.rebalance_timeout_ms,
            request.protocols,
        )
        self.protocol_type = request.protocol_type
        self.members[member_id] = member
        self.touch(member)
        return member

    def _replace_static(self, previous: Member, member_id: str, request: JoinRequest) -> Member | Joined:
        """A static member came back under a new id: it takes over its own place, and its old self is fenced.

        In a stable group nothing is assigned anew unless the choice of the assignor changes.
        """
        previous.stop(Refusal(Code.FENCED_INSTANCE_ID, f"another process is {request.instance_id} by now"))
        del self.members[previous.id]
        assignment, old_leader = previous.assignment, self.leader
        member = self._add(member_id, request)
        member.assignment = assignment
        if old_leader == previous.id:
            self.leader = member_id
        if self.state != State.STABLE or self._choose_protocol() != self.protocol:
            return member
        self.on_change(self)
        if request.can_skip_assignment:
            joined = self._describe_joined(member)
            return joined._replace(skip_assignment=self.leader == member_id)
        # An older client would assign if it saw itself as the leader, so it is shown the id that it had.
        return self._describe_joined(member)._replace(leader=old_leader, members=[])

    def _describe_joined(self, member: Member) -> Joined:
        members = list(self.members.values()) if member.id == self.leader else []
        return Joined(self.generation, self.protocol_type, self.protocol, self.leader, member.id, members)

    # Rebalancing

    def _prepare(self) -> None:
        """Begins a rebalance: everyone is to join again."""
        for member in self.members.values():
            if member.syncing and not member.syncing.done():
                member.syncing.set_exception(Refusal(Code.REBALANCE_IN_PROGRESS, "a rebalance has begun"))
            member.assignment = b""
        self._is_delayed = self.state == State.EMPTY
        self.state = State.PREPARING
        timeout_s = max((member.rebalance_timeout_ms for member in self.members.values()), default=0) / 1000
        self._set_phase_timer(INITIAL_DELAY_S if self._is_delayed else timeout_s, self._end_phase)

    def _set_phase_timer(self, delay_s: float, action: Callable[[], None]) -> None:
        if self._phase_timer:
            self._phase_timer.cancel()
        self._phase_timer = asyncio.get_running_loop().call_later(delay_s, action)

    def _end_phase(self) -> None:
        """The time to join is over: the initial delay, or the rebalance timeout."""
        if self._is_delayed:
            self._is_delayed = False
            timeout_s = max((member.rebalance_timeout_ms for member in self.members.values()), default=0) / 1000
            self._set_phase_timer(timeout_s, self._end_phase)
            self._finish_if_complete()
        else:
            self._finish()

    def _finish_if_complete(self) -> None:
        if self.state != State.PREPARING or self._is_delayed or self.pending_ids:
            return
        if all(member.joining for member in self.members.values()):
            self._finish()

    def _finish(self) -> None:
        """Begins a generation with those who joined; static members keep their place without joining."""
        for member in [member for member in self.members.values() if not member.joining and not member.instance_id]:
            member.stop()
            del self.members[member.id]
        joined = [member for member in self.members.values() if member.joining]
        if not self.members:
            self._become_empty()
            return
        if not joined:  # Only absent static members are left: wait for one of them or for their sessions' end.
            self._set_phase_timer(max(m.rebalance_timeout_ms for m in self.members.values()) / 1000, self._end_phase)
            return
        self.generation += 1
        self.state = State.COMPLETING
        if self.leader not in {member.id for member in joined}:
            self.leader = joined[0].id
        self.protocol = self._choose_protocol()
        for member in joined:
            waiting, member.joining = member.joining, None
            self.touch(member)
            if waiting and not waiting.done():
                waiting.set_result(None)
        timeout_s = max(member.rebalance_timeout_ms for member in self.members.values()) / 1000
        self._set_phase_timer(timeout_s, self._end_sync)

    def _end_sync(self) -> None:
        """The leader did not assign in time: those who do not wait for it, the leader among them, are out."""
        if self.state != State.COMPLETING:
            return
        for member in [member for member in self.members.values() if not member.syncing]:
            member.stop()
            del self.members[member.id]
        self._after_removal()

    def _choose_protocol(self) -> str:
        """The assignor with most votes; each member votes for its first among those that all have."""
        common = set.intersection(*(set(member.protocols) for member in self.members.values()))
        votes = Counter(next(p for p in member.protocols if p in common) for member in self.members.values())
        return votes.most_common(1)[0][0]

    def _become_empty(self) -> None:
        if self._phase_timer:
            self._phase_timer.cancel()
        self.state, self.leader, self.protocol = State.EMPTY, "", ""
        self.generation += 1
        self.on_change(self)

    # Syncing

    async def sync(
        self, generation: int, member_id: str, instance_id: str | None, assignments: dict[str, bytes]
    ) -> bytes:
        """The member's assignment; the leader brings everyone's, the others wait for it."""
        member = self.get_member(member_id, instance_id)
        self._validate_generation(generation)
        if self.state in (State.PREPARING, State.EMPTY):
            raise Refusal(Code.REBALANCE_IN_PROGRESS, "a rebalance has begun")
        self.touch(member)
        if self.state == State.COMPLETING:
            if member.id == self.leader:
                self._assign(assignments)
            else:
                await self._wait_synced(member)
        return member.assignment

    async def _wait_synced(self, member: Member) -> None:
        waiting = member.syncing = asyncio.get_running_loop().create_future()
        try:
            await waiting
        finally:
            if member.syncing is waiting:
                member.syncing = None

    def _assign(self, assignments: dict[str, bytes]) -> None:
        for member in self.members.values():
            member.assignment = assignments.get(member.id, b"")
        self.state = State.STABLE
        if self._phase_timer:
            self._phase_timer.cancel()
        self.on_change(self)
        for member in self.members.values():
            self.touch(member)
            if member.syncing and not member.syncing.done():
                member.syncing.set_result(None)

    # Living and leaving

    def find_static(self, instance_id: str) -> Member | None:
        return next((member for member in self.members.values() if member.instance_id == instance_id), None)

    def get_member(self, member_id: str, instance_id: str | None) -> Member:
        """The member of this id; refuses a stranger, and an earlier process of a static member."""
        if instance_id is not None:
            current = self.find_static(instance_id)
            if current is not None and current.id != member_id:
                raise Refusal(Code.FENCED_INSTANCE_ID, f"another process is {instance_id} by now")
        member = self.members.get(member_id)
        if member is None:
            raise Refusal(Code.UNKNOWN_MEMBER_ID, f"{member_id} is no member of {self.id}")
        return member

    def _validate_generation(self, generation: int) -> None:
        if generation != self.generation:
            message = f"generation {generation} is over, {self.generation} has begun"
            raise Refusal(Code.ILLEGAL_GENERATION, message)

    def heartbeat(self, generation: int, member_id: str, instance_id: str | None) -> None:
        """Keeps a member alive; refuses with REBALANCE_IN_PROGRESS when it is to join again."""
        member = self.get_member(member_id, instance_id)
        self._validate_generation(generation)
        self.touch(member)
        if self.state == State.PREPARING:
            raise Refusal(Code.REBALANCE_IN_PROGRESS, "a rebalance has begun")

    def validate_commit(self, generation: int, member_id: str, instance_id: str | None) -> None:
        """Refuses a commit by anyone but a member of this generation; without members anyone may commit."""
        if generation < 0 and not self.members:
            return
        member = self.get_member(member_id, instance_id)
        self._validate_generation(generation)
        if self.state == State.COMPLETING:
            raise Refusal(Code.REBALANCE_IN_PROGRESS, "the generation has no assignment yet")
        self.touch(member)

    def touch(self, member: Member) -> None:
        """Begins the member's session anew."""
        if member.timer:
            member.timer.cancel()
        loop = asyncio.get_running_loop()
        member.timer = loop.call_later(member.session_timeout_ms / 1000, self._expire, member)

    def _expire(self, member: Member) -> None:
        if self.members.get(member.id) is not member:
            return
        if member.joining or member.syncing:
            self.touch(member)  # It waits for us, not we for it.
            return
        self.remove(member)

    def leave(self, member_id: str, instance_id: str | None) -> None:
        """Removes a member at its own wish, or a static one at an administrator's (no member id then)."""
        pending = self.pending_ids.pop(member_id, None)
        if pending is not None:
            pending.cancel()
            self._finish_if_complete()
            return
        if instance_id is not None and not member_id:
            static = self.find_static(instance_id)
            if static is None:
                raise Refusal(Code.UNKNOWN_MEMBER_ID, f"no member has the instance id {instance_id}")
            self.remove(static)
            return
        self.remove(self.get_member(member_id, instance_id))

    def remove(self, member: Member) -> None:
        member.stop(Refusal(Code.UNKNOWN_MEMBER_ID, "the member has left"))
        del self.members[member.id]
        self._after_removal()

    def _after_removal(self) -> None:
        if not self.members:
            self._become_empty()
        elif self.state in (State.STABLE, State.COMPLETING):
            self._prepare()
        else:
            self._finish_if_complete()

    # Keeping

    def dump(self) -> dict[str, Any]:
        """A settled group as JSON values, so that a restarted broker knows its members."""
        return {
            "generation": self.generation,
            "protocol_type": self.protocol_type,
            "protocol": self.protocol,
            "leader": self.leader,
            "members": [member.dump() for member in self.members.values()],
        }

    @classmethod
    def load(cls, group_id: str, dump: dict[str, Any], on_change: Callable[["Group"], None]) -> "Group":
        """A stored group; its members have a whole session to be heard of."""
        members = {fact["id"]: Member.load(fact) for fact in dump["members"]}
        state = State.STABLE if members else State.EMPTY
        group = cls(
            group_id,
            on_change,
            state,
            dump["generation"],
            dump["protocol_type"],
            dump["protocol"],
            dump["leader"],
            members,
        )
        for member in members.values():
            group.touch(member)
        return group
