"""What is promised, held against SIGKILL: an accepted order is never lost and takes effect once."""

import signal
import threading
from pathlib import Path

from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, faulty
from tests.waiting import eventually

ORDERS = 2000


def test_listeners_killed_at_random_moments_lose_and_double_nothing(
    backend: Backend, tmp_path: Path
) -> None:
    orders, rounds = backend.times(ORDERS), backend.times(12)
    with faulty(tmp_path) as shop:
        for _ in range(rounds):
            listeners = shop.listen("only")
            before = shop.decided()
            posting = threading.Thread(target=shop.post, args=(orders // rounds + 1,))
            posting.start()
            # Anywhere from the first decision to after the last one of this round.
            share = before + shop.moments.randrange(1, orders // rounds)
            eventually(lambda at=share: shop.decided() >= at, f"{share} decisions", PATIENCE_S)
            posting.join(shop.moments.choice([0.0, shop.moments.random() / 5]))
            shop.kill(listeners)
            posting.join()
        assert shop.kills == rounds
        assert len(shop.accepted) >= orders
        shop.listen("only")
        shop.settle()
        shop.audit()


def test_an_api_killed_while_it_takes_orders_loses_and_doubles_none(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        shop.listen()
        posting = threading.Thread(target=shop.post, args=(ORDERS // 2,))
        posting.start()
        for kill in range(backend.times(5)):
            count = len(shop.accepted) + shop.moments.randrange(20, 150)
            eventually(lambda at=count: len(shop.accepted) >= at, f"{count} orders", PATIENCE_S)
            assert posting.is_alive(), f"kill {kill} comes while orders are taken"
            shop.kill(shop.serve)
            shop.serve = shop.start("serve")
        posting.join()
        shop.settle()
        shop.audit()


def test_orders_are_taken_while_the_broker_is_down_and_go_on_when_it_is_back(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        shop.listen_and_join()
        for _ in range(backend.times(3)):
            shop.post(300)
            shop.broker.kill()
            before = len(shop.accepted)
            shop.post_to_api_only(200)
            assert len(shop.accepted) == before + 200
            shop.broker.start()
        shop.settle()
        shop.audit()


def test_members_that_sleep_past_their_session_and_wake_up_skip_nothing(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        sleeper = shop.listen_and_join()
        for _ in range(backend.times(3)):
            shop.settle()  # asleep within a transaction it would hold up all writers of the file
            sleeper.send_signal(signal.SIGSTOP)
            shop.post(100)
            eventually(lambda: not shop.members("fraud"), "the sleeper's eviction", PATIENCE_S)
            shop.post(100)
            sleeper.send_signal(signal.SIGCONT)
            eventually(lambda: shop.decided() == len(shop.accepted), "decisions", PATIENCE_S)
        shop.settle()
        shop.audit()


def test_a_zombie_writes_nothing_after_another_took_over(backend: Backend, tmp_path: Path) -> None:
    with faulty(tmp_path) as shop:
        zombie = shop.listen_and_join()
        shop.post(100)
        shop.settle()
        zombie.send_signal(signal.SIGSTOP)
        heir = shop.listen_and_join()
        shop.post(300)
        eventually(lambda: shop.decided() == len(shop.accepted), "decisions", PATIENCE_S)
        zombie.send_signal(signal.SIGCONT)
        shop.post(300)
        shop.settle()
        shop.audit()
        assert heir.poll() is None
