"""Reading how far a run is."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.http.moment import moment


class Progress(Protocol):
    """How far the requests of a run are. `total`: of how many users, None until it is known;
    `refused`: why there will be none."""

    @property
    def total(self) -> int | None: ...

    @property
    def sent(self) -> int: ...

    @property
    def finished(self) -> bool: ...

    @property
    def refused(self) -> str | None: ...


class Requests(Protocol):
    """Who asks for the report of each user."""

    async def progress(self, fan_out_id: str) -> Progress | None:
        """Of the requests of a run, by its id; None where it is not known: it has not begun, or
        another program does it. Raises StoreUnavailable."""

    def close(self) -> None: ...


class State(StrEnum):
    REQUESTED = "requested"
    WRITING = "writing"
    FINISHED = "finished"
    REFUSED = "refused"


class RunView(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """How far a run is: of how many users a report is requested, and written. What is not known
    is null; where another program asks for the reports it stays so. `reason`: why it is refused."""

    id: str
    state: State
    correlation_id: str
    requested_at: datetime
    users: int | None = None
    requested: int | None = None
    written: int = 0
    finished_at: datetime | None = None
    reason: str | None = None


class RunReader:
    """Belongs to one event loop."""

    def __init__(self, database: Database, requests: Requests) -> None:
        self._reader = LoopReader(database)
        self._requests = requests

    def close(self) -> None:
        self._reader.close()
        self._requests.close()

    async def get(self, run_id: str) -> RunView | None:
        """Raises StoreUnavailable."""
        if "\0" in run_id:  # PostgreSQL takes none
            return None
        rows = await self._reader.by_key(
            "SELECT id, correlation_id, requested_at, written, written_at FROM report_run "
            "WHERE id = :id",
            {"id": run_id},
        )
        return _view(rows[0], await self._requests.progress(run_id)) if rows else None


def _view(row: Any, progress: Progress | None) -> RunView:
    id_, correlation_id, requested_at, written, written_at = row
    state = _state(written, progress)
    ended = state is State.FINISHED and written_at is not None
    view = RunView(
        id_,
        state,
        correlation_id,
        moment(requested_at),
        requested=written or None,
        written=written,
        finished_at=moment(written_at) if ended else None,
    )
    if progress is None:
        return view
    return msgspec.structs.replace(
        view,
        users=progress.total,
        requested=max(progress.sent, written),
        reason=progress.refused,
    )


def _state(written: int, progress: Progress | None) -> State:
    if progress is not None and progress.refused is not None:
        return State.REFUSED
    if progress is not None and progress.finished and written >= (progress.total or 0):
        return State.FINISHED
    if written or (progress is not None and progress.sent):
        return State.WRITING
    return State.REQUESTED
