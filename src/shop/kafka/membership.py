"""Coming back to a group under the same names (static membership, KIP-345), where that is safe."""

import logging
from collections.abc import Mapping, Sequence

from shop.kafka.connection import Connection
from shop.kafka.errors import BrokerUnreachable, KafkaError
from shop.kafka.groups import describe_groups, group_names
from shop.kafka.listener import Source, takes
from shop.kafka.store import Partition

log = logging.getLogger(__name__)


def resumable(
    connection: Connection, sources: Mapping[str, Sequence[Source]], timeout: float = 8.0
) -> set[str]:
    """The groups, of those with these sources, whose members may come back under their names.

    A member that comes back gets the partitions that it had, without a rebalance. In a cooperative
    rebalance (KIP-429) a partition is first taken from one member and then, in a second round that
    the first member asks for, given to another. Where processes end between the two, the partition
    is nobody's, and would stay so for as long as all come back under their names. Members that join
    as new ones make the group assign all partitions again.

    So they do when Kafka cannot tell. Raises BrokerUnreachable."""
    topics = connection.metadata(timeout).topics
    try:
        # Only a stable group is asked after: on a new broker, asking for one takes long.
        stable = set(group_names(connection, timeout, stable=True)) & sources.keys()
        states = describe_groups(connection, list(stable), timeout)
    except BrokerUnreachable:
        raise
    except KafkaError as error:
        log.warning("%s; joining all groups anew, which takes up to a session timeout", error)
        return set()
    left = set()
    for state in states:
        wanted = {
            Partition(name, number)
            for name, topic in topics.items()
            if any(takes(source, name) for source in sources[state.name])
            for number in topic.partitions
        }
        owned = {partition for member in state.members for partition in member.partitions}
        if state.members and not wanted <= owned:
            left.add(state.name)
            log.warning(
                "group %s was left in the middle of a rebalance; joining it anew, which takes up "
                "to a session timeout",
                state.name,
            )
    return set(sources) - left
