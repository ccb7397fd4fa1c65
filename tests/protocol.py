"""Requests and answers of Kafka's protocol, as far as tests/proxies.py changes them:
https://kafka.apache.org/protocol."""

import struct

UNKNOWN_SERVER_ERROR, LEADER_NOT_AVAILABLE, NOT_LEADER, NOT_COORDINATOR = -1, 5, 6, 16


def produced_to(request: bytes, version: int) -> tuple[bytes, int]:
    """The topic and partition of a Produce request (versions 9 to 12), which librdkafka sends for
    each partition by itself."""
    assert 9 <= version <= 12, f"Produce version {version} is laid out otherwise"
    at = Cursor(bytearray(request), 8)  # behind api, version and correlation id
    (client,) = struct.unpack_from(">h", request, at.place)
    at.skip(2 + max(0, client))
    at.tags()
    at.string()  # transactional id
    at.skip(2 + 4)  # acks, timeout
    assert len(at.array()) == 1
    topic = at.text()
    assert len(at.array()) == 1
    (partition,) = struct.unpack_from(">i", request, at.place)
    return topic, partition


def not_leader(correlation_id: int, topic: bytes, partition: int) -> bytes:
    """A Produce response."""
    offsets = struct.pack(">ihqqq", partition, NOT_LEADER, -1, -1, -1)
    # No faulty records, no message, no tags; behind the partitions no tags, and no throttle time.
    one = offsets + b"\x01" + b"\x00" + b"\x00"
    named = bytes([len(topic) + 1]) + topic + b"\x02" + one + b"\x00"
    return struct.pack(">i", correlation_id) + b"\x00" + b"\x02" + named + bytes(4) + b"\x00"


def without_brokers(answer: bytes, version: int) -> bytes:
    """A Metadata response (https://kafka.apache.org/protocol, version 12 and 13)."""
    assert version >= 12, f"Metadata version {version} is laid out otherwise"
    message = bytearray(answer)
    at = Cursor(message, 4)  # behind the correlation id
    at.tags()
    at.skip(4)  # throttle time
    brokers = at.place
    for _ in at.array():
        at.skip(4)  # id
        at.string()  # host
        at.skip(4)  # port
        at.string()  # rack
        at.tags()
    behind = at.place
    at.string()  # cluster id
    at.skip(4)  # controller
    for _ in at.array():  # topics
        at.skip(2)  # error
        at.string()  # name
        at.skip(16 + 1)  # id, whether it is internal
        for _ in at.array():  # partitions
            struct.pack_into(">h", message, at.place, LEADER_NOT_AVAILABLE)
            at.skip(2 + 4)  # error, number
            struct.pack_into(">i", message, at.place, -1)
            at.skip(4 + 4)  # leader, its epoch
            for _ in range(3):  # replicas, those in sync, those away
                at.skip(4 * len(at.array()))
            at.tags()
        at.skip(4)  # what one is authorised to
        at.tags()
    return bytes(message[:brokers]) + b"\x01" + bytes(message[behind:])


def no_coordinator(answer: bytes, version: int) -> bytes:
    """An OffsetFetch response (version 8 and 9) with an error for each group."""
    assert 8 <= version <= 9, f"OffsetFetch version {version} is laid out otherwise"
    message = bytearray(answer)
    at = Cursor(message, 4)
    at.tags()
    at.skip(4)  # throttle time
    for _ in at.array():  # groups
        at.string()
        for _ in at.array():  # topics
            at.string()
            for _ in at.array():  # partitions
                at.skip(4 + 8 + 4)  # number, offset, epoch
                at.string()
                at.skip(2)  # error
                at.tags()
            at.tags()
        struct.pack_into(">h", message, at.place, NOT_COORDINATOR)
        at.skip(2)
        at.tags()
    return bytes(message)


def failed_fetch(answer: bytes, version: int, partition: int) -> bytes:
    """A Fetch response (version 12 to 17) with an error for that partition, if it tells of it."""
    assert 12 <= version <= 17, f"Fetch version {version} is laid out otherwise"
    message = bytearray(answer)
    at = Cursor(message, 4)
    at.tags()
    at.skip(4 + 2 + 4)  # throttle time, error, session
    for _ in at.array():  # topics
        if version >= 13:
            at.skip(16)  # its id
        else:
            at.string()
        for _ in at.array():  # partitions
            (number,) = struct.unpack_from(">i", message, at.place)
            if number == partition:
                struct.pack_into(">h", message, at.place + 4, UNKNOWN_SERVER_ERROR)
            at.skip(4 + 2 + 8 + 8 + 8)  # number, error, three offsets
            for _ in at.array():  # aborted transactions
                at.skip(8 + 8)
                at.tags()
            at.skip(4)  # replica to read from
            at.string()  # records
            at.tags()
        at.tags()
    return bytes(message)


class Cursor:
    """A place in a message of Kafka's "flexible" versions."""

    def __init__(self, message: bytearray, place: int) -> None:
        self._message, self.place = message, place

    def skip(self, count: int) -> None:
        self.place += count

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._message[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def array(self) -> range:
        return range(max(0, self.varint() - 1))  # 0 stands for null

    def string(self) -> None:
        self.skip(len(self.array()))

    def text(self) -> bytes:
        length = len(self.array())
        self.skip(length)
        return bytes(self._message[self.place - length : self.place])

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
