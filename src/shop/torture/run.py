"""Orders flow, processes are killed and frozen, all is awaited, then audited."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from shop.email.maildir import mails
from shop.kafka.errors import KafkaError
from shop.supervisor import GaveUp, Member, Supervisor
from shop.torture.faults import Fault
from shop.torture.look import Look
from shop.torture.orders import Orders
from shop.torture.outcome import Outcome, Recovery
from shop.torture.place import Place
from shop.verify import CannotLook, audit

START_S = 90.0
CATCH_UP_S = 120.0
_LOOK_S = 0.05
_LOOK_AT_GROUPS_S = 0.5


class Torture:
    """One run. `brokers` are kept running as long as it lasts; none where they are of others.

    `enough`, set by any thread, ends orders and faults before their time; what was accepted is
    awaited and audited all the same. `say` gets a line for each fault and each step."""

    def __init__(
        self,
        place: Place,
        faults: Sequence[Fault],
        orders: Orders,
        *,
        seconds: float,
        command: str,
        brokers: Sequence[Member] = (),
        say: Callable[[str], None],
    ) -> None:
        self.enough = threading.Event()
        self.outcome = Outcome(command)
        self._place = place
        self._faults = list(faults)
        self._orders = orders
        self._seconds = seconds
        self._say = say
        # Dying young is what they are for: never give up.
        self._brokers = Supervisor(brokers, self._died, youth=0)
        self._processes = Supervisor(place.processes, self._died, youth=0)
        self._frozen: list[tuple[float, list[int]]] = []
        self._unrecovered: list[tuple[float, int, Fault]] = []
        self._look = Look(place)

    def run(self, since: int | None = None) -> Outcome:
        """The outcome, whatever happens; KeyboardInterrupt ends it at once. `since`: what the audit
        looks at, milliseconds since the epoch."""
        try:
            self._start()
            self._torment()
            self._await_all()
            self._audit(since)
        except (GaveUp, KafkaError, CannotLook) as error:
            self.outcome.findings.append(str(error))
        except KeyboardInterrupt:
            self._processes.kill()
            self._brokers.kill()
            raise
        finally:
            self._thaw(all_of_them=True)
            self._orders.stop()
            self._count()
            self._processes.stop(15.0)
            self._brokers.stop(10.0)
            self._look.close()
        return self.outcome

    def _start(self) -> None:
        self._brokers.start()
        self._place.create_topics()
        self._processes.start()
        self._until(
            lambda: not self._processes.starting,
            START_S,
            lambda: f"{', '.join(self._processes.starting)} did not start",
        )
        self._orders.start()

    def _torment(self) -> None:
        self._say(f"orders flow for {self._seconds:g} s")
        began = time.monotonic()
        due = list(self._faults)
        while not self.enough.is_set():
            now = time.monotonic() - began
            if now > self._seconds and not due and self._orders.done:
                break
            self._keep_running()
            self._thaw()
            for fault in [fault for fault in due if fault.at <= now]:
                if self._strike(fault):
                    due.remove(fault)
            time.sleep(_LOOK_S)
        self._orders.stop()
        self._thaw(all_of_them=True)

    def _strike(self, fault: Fault) -> bool:
        """Whether there was something to kill: what is just being started again is left until it
        runs."""
        pids = self._place.pids(fault.victim)
        if not pids:
            return False
        self._say(str(fault) if fault.frozen is None else f"{fault} for {fault.frozen:.1f} s")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if fault.frozen is None else signal.SIGSTOP)
        if fault.frozen is not None:
            self._frozen.append((time.monotonic() + fault.frozen, pids))
        self.outcome.faults.append(fault)
        self._unrecovered.append((time.monotonic(), len(self._orders.accepted), fault))
        return True

    def _thaw(self, *, all_of_them: bool = False) -> None:
        for until, pids in list(self._frozen):
            if all_of_them or time.monotonic() >= until:
                self._frozen.remove((until, pids))
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

    def _keep_running(self) -> None:
        """Start again what ended, and see what has recovered. Raises GaveUp."""
        self._brokers.check()
        self._processes.check()
        if not self._unrecovered:
            return
        decided = self._look.decided()
        for began, accepted, fault in list(self._unrecovered):
            if decided > accepted:
                self._unrecovered.remove((began, accepted, fault))
                self.outcome.recoveries.append(Recovery(fault, time.monotonic() - began))

    def _died(self, what: str) -> None:
        """What a supervisor says of a death. That of one that nobody had killed is told with its
        last words, since its log goes when nothing is found."""
        if "SIGKILL" in what:
            return
        words = [p.last_words() for p in self._place.processes if what.startswith(f"{p.name} ")]
        told = ": ".join([what.partition(";")[0], *words])
        self.outcome.ended[told] += 1
        self._say(told)

    def _await_all(self) -> None:
        self._say(f"waiting until {len(self._orders.accepted)} accepted orders are through")
        began = time.monotonic()
        try:
            self._until(self._caught_up, CATCH_UP_S, self._look.why_not, _LOOK_AT_GROUPS_S)
        except GaveUp as error:  # the audit says what is missing
            self.outcome.findings.append(str(error))
            return
        self.outcome.caught_up_s = time.monotonic() - began
        for at, _, fault in self._unrecovered:
            self.outcome.recoveries.append(Recovery(fault, time.monotonic() - at))

    def _until(
        self,
        condition: Callable[[], bool],
        patience: float,
        why_not: Callable[[], str],
        every: float = _LOOK_S,
    ) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise GaveUp(f"not within {patience:g} s: {why_not()}")
            self._keep_running()
            time.sleep(every)

    def _caught_up(self) -> bool:
        return not (self._brokers.starting or self._processes.starting or self._look.why_not())

    def _audit(self, since: int | None) -> None:
        self._say("auditing")
        findings = self.outcome.findings
        if refused := self._orders.refused:
            findings.append(f"refused: {len(refused)} orders, for example with {refused[0]}")
        if lost := self._look.not_as_accepted(self._orders.accepted.values()):
            findings.append(f"lost: {len(lost)} accepted orders, for example {lost[0]}")
        self.outcome.report = audit(self._place.settings, since=since)
        for finding in self.outcome.report.findings:
            example = f", for example {finding.examples[0]}" if finding.examples else ""
            findings.append(
                f"{finding.kind.value}: {finding.count} {finding.what} ({finding.where}){example}"
            )

    def _count(self) -> None:
        outcome, orders = self.outcome, self._orders
        outcome.sent, outcome.repeated = orders.sent, orders.repeated
        outcome.accepted = len(orders.accepted)
        if orders.sent:
            outcome.decided = self._look.decided()
        kept = [mail.message_id for mail in mails(self._place.settings.data_dir / "mail")]
        outcome.mails, outcome.mail_copies = len(kept), len(kept) - len(set(kept))
