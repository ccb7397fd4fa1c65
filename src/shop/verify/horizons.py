"""How far back the topics tell all: retention deletes, and who asks may want less."""

from shop.http.moment import moment
from shop.verify.report import Notes


class Horizons:
    """Since when all records of each topic are there, milliseconds since the epoch. `asked`: since
    when the audit is to look."""

    def __init__(self, asked: int, notes: Notes) -> None:
        self.asked = asked
        self._notes = notes
        self._since: dict[str, int] = {}

    @property
    def topics(self) -> list[str]:
        return list(self._since)

    def begin(self, topic: str, at: int) -> None:
        """Not everything from before is there. The latest that is said of a topic counts."""
        self._since[topic] = max(at, self._since.get(topic, self.asked))

    def judged(self, at: int, what: str, where: str, *topics: str) -> bool:
        """Whether what is missing on all these topics, and came at that time, is lost. A remark
        tells how much may as well have been deleted."""
        since = max(self._since.get(topic, self.asked) for topic in topics)
        if at < since and at >= self.asked:
            begin = moment(since).isoformat(timespec="seconds")
            there = f"all of {' and '.join(topics)} is there only since {begin}"
            self._notes.remark(f"{what}: not judged, for {there}", where)
        return at >= since
