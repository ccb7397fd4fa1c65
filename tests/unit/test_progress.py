from shop.kafka.progress import Progress
from shop.kafka.store import Partition

P, Q = Partition("T", 0), Partition("T", 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_partition_stands_for_as_long_as_its_offset_is_the_same() -> None:
    clock = Clock()
    progress = Progress(clock)
    for second in range(20):
        clock.now = 100.0 + second
        progress.turned(lambda: {P: 7, Q: int(clock.now)})
    assert progress.standing(15) == {P: 7}
    assert progress.standing(19) == {}
    clock.now += 1
    progress.turned(lambda: {P: 8})
    assert progress.standing(15) == {}


def test_a_partition_that_waited_for_something_begins_anew() -> None:
    clock = Clock()
    progress = Progress(clock)
    for standing in ({P: 7}, {}, {P: 7}):
        clock.now += 10
        progress.turned(lambda standing=standing: standing)  # type: ignore[misc]
    assert progress.standing(5) == {}


def test_a_batch_is_in_hand_until_the_turn_ends() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 61
    assert progress.in_hand_for() == 61
    progress.turned(dict)
    assert progress.in_hand_for() == 0
