"""Consumer groups: finding the coordinator, membership, committed offsets, administration."""

from typing import Any

from driftloop.embedded.broker.broker import NODE_ID, Broker
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.groups import Group
from driftloop.embedded.broker.handlers import Call, Handler
from driftloop.embedded.broker.members import JoinRequest, MemberIdRequired
from driftloop.embedded.broker.offsets import MAX_METADATA_BYTES, CommittedOffset, Place
from driftloop.embedded.broker.wire import Message


async def find_coordinator(broker: Broker, call: Call, request: Message) -> Message:
    """This broker coordinates everything; versions from 4 on ask for several keys at once."""
    here = {"node_id": NODE_ID, "host": broker.host, "port": broker.port}
    return {**here, "coordinators": [{"key": key, **here} for key in request["coordinator_keys"]]}


# From version 4 on a new member first learns its id (KIP-394); from 9 on a static leader may skip the assignment.
KNOWN_ID_SINCE, SKIP_ASSIGNMENT_SINCE = 4, 9


async def join_group(broker: Broker, call: Call, request: Message) -> Message:
    session_timeout_ms = request["session_timeout_ms"]
    join = JoinRequest(
        member_id=request["member_id"],
        instance_id=request["group_instance_id"],
        client_id=call.client_id,
        client_host=call.client_host,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=max(request["rebalance_timeout_ms"], 0) or session_timeout_ms,
        protocol_type=request["protocol_type"],
        protocols={protocol["name"]: protocol["metadata"] for protocol in request["protocols"]},
        needs_known_id=call.version >= KNOWN_ID_SINCE,
        can_skip_assignment=call.version >= SKIP_ASSIGNMENT_SINCE,
    )
    try:
        joined = await broker.groups.join(request["group_id"], join)
    except MemberIdRequired as required:
        return {"error_code": required.code, "member_id": required.member_id}
    except Refusal as refusal:
        return {"error_code": refusal.code, "member_id": request["member_id"]}
    members = [
        {
            "member_id": member.id,
            "group_instance_id": member.instance_id,
            "metadata": member.protocols[joined.protocol],
        }
        for member in joined.members
    ]
    return {
        "generation_id": joined.generation,
        "protocol_type": joined.protocol_type,
        "protocol_name": joined.protocol,
        "leader": joined.leader,
        "skip_assignment": joined.skip_assignment,
        "member_id": joined.member_id,
        "members": members,
    }


async def sync_group(broker: Broker, call: Call, request: Message) -> Message:
    assignments = {one["member_id"]: one["assignment"] for one in request["assignments"]}
    try:
        group = broker.groups.get(request["group_id"])
        assignment = await group.sync(
            request["generation_id"], request["member_id"], request["group_instance_id"], assignments
        )
    except Refusal as refusal:
        return {"error_code": refusal.code}
    return {"protocol_type": group.protocol_type, "protocol_name": group.protocol, "assignment": assignment}


async def heartbeat(broker: Broker, call: Call, request: Message) -> Message:
    try:
        group = broker.groups.get(request["group_id"])
        group.heartbeat(request["generation_id"], request["member_id"], request["group_instance_id"])
    except Refusal as refusal:
        return {"error_code": refusal.code}
    return {}


async def leave_group(broker: Broker, call: Call, request: Message) -> Message:
    """Versions below 3 name one member, later ones several."""
    leaving = request["members"] or [{"member_id": request["member_id"], "group_instance_id": None}]
    try:
        group = broker.groups.get(request["group_id"])
    except Refusal as refusal:
        return {"error_code": refusal.code}
    answers = []
    for member in leaving:
        code = Code.NONE
        try:
            group.leave(member["member_id"], member["group_instance_id"])
        except Refusal as refusal:
            code = refusal.code
        answers.append({**member, "error_code": code})
    return {"error_code": Code.NONE if request["members"] else answers[0]["error_code"], "members": answers}


def read_offsets(broker: Broker, topics: list[Message]) -> tuple[dict[Place, CommittedOffset], dict[Place, Code]]:
    """The offsets of a commit request that can be stored, and why the others cannot."""
    offsets: dict[Place, CommittedOffset] = {}
    refused: dict[Place, Code] = {}
    for topic in topics:
        for partition in topic["partitions"]:
            place = (topic["name"], partition["partition_index"])
            text = partition["committed_metadata"] or ""
            try:
                broker.topics.get_log(*place)
                if len(text.encode()) > MAX_METADATA_BYTES:
                    raise Refusal(Code.OFFSET_METADATA_TOO_LARGE, f"more than {MAX_METADATA_BYTES} bytes")
            except Refusal as refusal:
                refused[place] = refusal.code
                continue
            offsets[place] = CommittedOffset(partition["committed_offset"], partition["committed_leader_epoch"], text)
    return offsets, refused


def answer_offsets(topics: list[Message], codes: dict[Place, Code], default: Code) -> list[Message]:
    """The response to a commit: a code for every partition that was asked for."""
    return [
        {
            "name": topic["name"],
            "partitions": [
                {
                    "partition_index": partition["partition_index"],
                    "error_code": codes.get((topic["name"], partition["partition_index"]), default),
                }
                for partition in topic["partitions"]
            ],
        }
        for topic in topics
    ]


async def commit_offsets(broker: Broker, call: Call, request: Message) -> Message:
    topics = request["topics"]
    try:
        broker.groups.validate_commit(
            request["group_id"], request["generation_id"], request["member_id"], request["group_instance_id"]
        )
    except Refusal as refusal:
        return {"topics": answer_offsets(topics, {}, refusal.code)}
    offsets, refused = read_offsets(broker, topics)
    broker.offsets.commit(request["group_id"], offsets)
    return {"topics": answer_offsets(topics, refused, Code.NONE)}


async def fetch_offsets(broker: Broker, call: Call, request: Message) -> Message:
    """One group up to version 7, several from version 8 on."""
    is_stable = request["require_stable"]
    groups = [
        {
            "group_id": group["group_id"],
            "topics": _describe_offsets(broker, group["group_id"], group["topics"], is_stable),
        }
        for group in request["groups"]
    ]
    if groups:
        return {"groups": groups}
    return {"topics": _describe_offsets(broker, request["group_id"], request["topics"], is_stable)}


def _describe_offsets(broker: Broker, group: str, asked: list[Message] | None, is_stable: bool) -> list[Message]:
    """Committed offsets of these partitions, or of all that the group has."""
    known = broker.offsets.get(group)
    wanted: dict[str, list[int]] = {}
    if asked is None:
        for topic, index in sorted(known):
            wanted.setdefault(topic, []).append(index)
    else:
        wanted = {topic["name"]: topic["partition_indexes"] for topic in asked}
    answers = []
    for topic, indexes in wanted.items():
        partitions = []
        for index in indexes:
            committed = known.get((topic, index), CommittedOffset(-1, -1, ""))
            if is_stable and broker.transactions.is_pending(group, (topic, index)):
                answer: Message = {"committed_offset": -1, "error_code": Code.UNSTABLE_OFFSET_COMMIT}
            else:
                answer = {
                    "committed_offset": committed.offset,
                    "committed_leader_epoch": committed.leader_epoch,
                    "metadata": committed.metadata,
                }
            partitions.append({"partition_index": index, **answer})
        answers.append({"name": topic, "partitions": partitions})
    return answers


async def describe_groups(broker: Broker, call: Call, request: Message) -> Message:
    return {"groups": [_describe_group(group_id, broker.groups.find(group_id)) for group_id in request["groups"]]}


def _describe_group(group_id: str, group: Group | None) -> Message:
    if group is None:
        return {"group_id": group_id, "group_state": "Dead"}
    members: list[dict[str, Any]] = [
        {
            "member_id": member.id,
            "group_instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": f"/{member.client_host}",
            "member_metadata": member.protocols.get(group.protocol, b""),
            "member_assignment": member.assignment,
        }
        for member in group.members.values()
    ]
    return {
        "group_id": group_id,
        "group_state": group.state,
        "protocol_type": group.protocol_type,
        "protocol_data": group.protocol,
        "members": members,
    }


async def list_groups(broker: Broker, call: Call, request: Message) -> Message:
    states = {state.lower() for state in request["states_filter"]}
    types = {kind.lower() for kind in request["types_filter"]}
    groups = []
    for group_id in broker.groups.list_ids():
        group = broker.groups.find(group_id)
        if group is None or (states and group.state.lower() not in states) or (types and "classic" not in types):
            continue
        groups.append(
            {
                "group_id": group_id,
                "protocol_type": group.protocol_type,
                "group_state": group.state,
                "group_type": "classic",
            }
        )
    return {"groups": groups}


async def delete_groups(broker: Broker, call: Call, request: Message) -> Message:
    results = []
    for group_id in request["groups_names"]:
        code = Code.NONE
        try:
            broker.groups.delete(group_id)
        except Refusal as refusal:
            code = refusal.code
        results.append({"group_id": group_id, "error_code": code})
    return {"results": results}


async def delete_offsets(broker: Broker, call: Call, request: Message) -> Message:
    group = broker.groups.find(request["group_id"])
    if group is None:
        return {"error_code": Code.GROUP_ID_NOT_FOUND}
    topics = request["topics"]
    if group.members:
        return {"topics": answer_offsets(topics, {}, Code.GROUP_SUBSCRIBED_TO_TOPIC)}
    places = [(topic["name"], partition["partition_index"]) for topic in topics for partition in topic["partitions"]]
    broker.offsets.forget(request["group_id"], places)
    return {"topics": answer_offsets(topics, {}, Code.NONE)}


HANDLERS: dict[str, Handler] = {
    "FindCoordinator": find_coordinator,
    "JoinGroup": join_group,
    "SyncGroup": sync_group,
    "Heartbeat": heartbeat,
    "LeaveGroup": leave_group,
    "OffsetCommit": commit_offsets,
    "OffsetFetch": fetch_offsets,
    "DescribeGroups": describe_groups,
    "ListGroups": list_groups,
    "DeleteGroups": delete_groups,
    "OffsetDelete": delete_offsets,
}
