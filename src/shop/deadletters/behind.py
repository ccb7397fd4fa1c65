"""Letters of records that failed only because they stand behind another of their key."""

from shop.kafka.errors import HeldBack

HELD = f"{HeldBack.__module__}.{HeldBack.__qualname__}"

# Of `letter`, that it waits and stands behind `first`; takes HELD as :held.
STANDS_BEHIND = (
    "letter.state = 'waiting' AND letter.exception = :held "
    "AND first.consumer_group = letter.consumer_group AND first.topic = letter.topic "
    "AND first.key_name = letter.key_name "
    'AND (first.partition, first."offset") < (letter.partition, letter."offset")'
)
