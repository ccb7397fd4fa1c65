from shop.kafka.progress import Progress, Standstill
from shop.kafka.store import Partition

P, Q = Partition("T", 0), Partition("T", 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_partition_that_stands_still_with_records_to_read_is_a_stall() -> None:
    clock = Clock()
    progress = Progress(clock)
    for second in range(20):
        clock.now = 100.0 + second
        progress.turned(lambda: {P: 7, Q: int(clock.now)})
    assert progress.standstills(15) == [Standstill("T[0] stands at 7 for 19 s", P, 7)]
    assert progress.standstills(19) == []
    clock.now += 1
    progress.turned(lambda: {P: 8})
    assert progress.standstills(15) == []


def test_a_partition_that_had_nothing_to_read_for_a_while_begins_anew() -> None:
    clock = Clock()
    progress = Progress(clock)
    for behind in ({P: 7}, {}, {P: 7}):
        clock.now += 10
        progress.turned(lambda behind=behind: behind)  # type: ignore[misc]
    assert progress.standstills(5) == []


def test_a_loop_that_does_not_come_round_is_a_stall() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 61
    assert progress.standstills(60) == [Standstill("the batch in hand takes 61 s", in_hand=True)]
    progress.turned(dict)
    assert progress.standstills(60) == []
