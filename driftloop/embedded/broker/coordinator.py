"""All consumer groups of the broker, and their way into the journal and back."""

from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.groups import Group, State
from driftloop.embedded.broker.journal import Journal
from driftloop.embedded.broker.members import Joined, JoinRequest
from driftloop.embedded.broker.offsets import CommittedOffsets

# Apache Kafka's defaults (group.min.session.timeout.ms, group.max.session.timeout.ms).
SESSION_TIMEOUT_MS_MIN, SESSION_TIMEOUT_MS_MAX = 6_000, 1_800_000
MAX_GROUPS = 10_000


class GroupCoordinator:
    """Groups by id; a group exists while it has members or committed offsets."""

    def __init__(self, journal: Journal, offsets: CommittedOffsets) -> None:
        self.offsets = offsets
        self._journal = journal
        self._groups: dict[str, Group] = {}
        for (_, group_id), fact in journal.select("group"):
            self._groups[str(group_id)] = Group.load(str(group_id), fact, self._save)

    def _save(self, group: Group) -> None:
        self._journal.put({("group", group.id): group.dump()})

    def list_ids(self) -> list[str]:
        return sorted({*self._groups, *self.offsets.groups})

    def find(self, group_id: str) -> Group | None:
        """The group, also one that has only ever committed offsets; None for an unknown one."""
        group = self._groups.get(group_id)
        if group is None and group_id in self.offsets.groups:
            return Group(group_id, self._save)
        return group

    def get(self, group_id: str) -> Group:
        """The group with members in it; a request about a member of any other is UNKNOWN_MEMBER_ID."""
        group = self._groups.get(group_id)
        if group is None:
            raise Refusal(Code.UNKNOWN_MEMBER_ID, f"group {group_id} has no members")
        return group

    async def join(self, group_id: str, request: JoinRequest) -> Joined:
        if not group_id:
            raise Refusal(Code.INVALID_GROUP_ID, "a group needs an id")
        if not SESSION_TIMEOUT_MS_MIN <= request.session_timeout_ms <= SESSION_TIMEOUT_MS_MAX:
            message = f"session.timeout.ms is between {SESSION_TIMEOUT_MS_MIN} and {SESSION_TIMEOUT_MS_MAX}"
            raise Refusal(Code.INVALID_SESSION_TIMEOUT, message)
        group = self._groups.get(group_id)
        if group is None:
            # As Kafka: who names an id in a group that nobody knows is no member of it.
            if request.member_id:
                raise Refusal(Code.UNKNOWN_MEMBER_ID, f"group {group_id} has no members")
            if len(self._groups) >= MAX_GROUPS:
                raise Refusal(Code.COORDINATOR_NOT_AVAILABLE, f"there are {MAX_GROUPS} groups; delete some")
            group = self._groups[group_id] = Group(group_id, self._save)
        return await group.join(request)

    def validate_commit(self, group_id: str, generation: int, member_id: str, instance_id: str | None) -> None:
        """Refuses a commit that is not by a present member; a group without members takes anyone's."""
        group = self._groups.get(group_id)
        if group is not None:
            group.validate_commit(generation, member_id, instance_id)
        elif generation >= 0:
            raise Refusal(Code.ILLEGAL_GENERATION, f"group {group_id} has no members")

    def forget_empty(self) -> None:
        """Drops the groups that have neither members nor offsets: nothing is left to know of them."""
        known = set(self.offsets.groups)
        for group in list(self._groups.values()):
            if group.state == State.EMPTY and not group.pending_ids and group.id not in known:
                self._journal.put({("group", group.id): None})
                del self._groups[group.id]

    def delete(self, group_id: str) -> None:
        """Removes a group without members, and its offsets."""
        group = self.find(group_id)
        if group is None:
            raise Refusal(Code.GROUP_ID_NOT_FOUND, f"there is no group {group_id}")
        if group.members or group.pending_ids:
            raise Refusal(Code.NON_EMPTY_GROUP, f"group {group_id} has members")
        self.offsets.forget(group_id, self.offsets.get(group_id))
        self._journal.put({("group", group_id): None})
        self._groups.pop(group_id, None)
