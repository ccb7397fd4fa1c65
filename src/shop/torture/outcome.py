"""What came of it, on one screen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from shop.torture.faults import Fault
from shop.verify import Report


@dataclass
class Recovery:
    """From a fault until an order that was posted after it had gone its way to its decision."""

    fault: Fault
    seconds: float


@dataclass
class Outcome:
    """`findings`: a line for each promise that was broken. `report` is the audit's, None where it
    was not come to; `ended` tells which processes ended though nobody had killed them."""

    command: str
    sent: int = 0
    accepted: int = 0
    repeated: int = 0
    decided: int = 0
    faults: list[Fault] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    caught_up_s: float | None = None
    mails: int = 0
    mail_copies: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    report: Report | None = None

    def lines(self) -> list[str]:
        """For the user; without the findings."""
        rows = {
            "repeat it": self.command,
            "orders": f"{self.sent} sent, {self.accepted} accepted, {self.decided} decided; "
            f"{self.repeated} times sent again, since no answer came",
            "killed": _by_victim([fault for fault in self.faults if fault.frozen is None]),
            "frozen": _by_victim([fault for fault in self.faults if fault.frozen is not None]),
            "recovery": self._recovery(),
            "caught up": "no"
            if self.caught_up_s is None
            else f"{self.caught_up_s:.1f} s after the last order",
            "mails": f"{self.mails} delivered by SMTP, {self.mail_copies} of them a second time "
            "(allowed after a crash)",
            "ended": "; ".join(f"{what} ({times}x)" for what, times in self.ended.items())
            or "nothing by itself",
            "audit": "not come to"
            if self.report is None
            else f"{self.report.records} records read, "
            f"{sum(finding.count for finding in self.report.findings) or 'nothing'} found",
        }
        return [f"{name:10} {text}" for name, text in rows.items()]

    def _recovery(self) -> str:
        if not self.recoveries:
            return "none was needed"
        longest = max(self.recoveries, key=lambda recovery: recovery.seconds)
        usual = median(recovery.seconds for recovery in self.recoveries)
        return f"{longest.seconds:.1f} s at most ({longest.fault}), {usual:.1f} s in the median"


def _by_victim(faults: Sequence[Fault]) -> str:
    counts = Counter(fault.victim for fault in faults)
    each = ", ".join(f"{victim} {times}x" for victim, times in sorted(counts.items()))
    return f"{len(faults)} ({each})" if faults else "0"
