"""The log as readers outside Faust see it: a producer, reading to the end, specs, roles, and the topics themselves."""

from store.log.followers import RoleFollower, SpecFollower, publish_roles
from store.log.producer import Producer
from store.log.reader import LogMessage, TopicReader
from store.log.topics import TopicDifference, apply_topics, describe_topics, diff_topics

__all__ = [
    "LogMessage",
    "Producer",
    "RoleFollower",
    "SpecFollower",
    "TopicDifference",
    "TopicReader",
    "apply_topics",
    "describe_topics",
    "diff_topics",
    "publish_roles",
]
