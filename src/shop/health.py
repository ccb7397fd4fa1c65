"""Whether this process works, and whether what it needs does."""

import asyncio
import urllib.request
from collections.abc import Callable, Mapping
from urllib.error import HTTPError

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec

from shop.http import problems
from shop.http.body import JsonResponse
from shop.http.service import ServiceApi

# None, or in a few words why not. May block, for a moment; called in a thread.
Check = Callable[[], str | None]

PATIENCE_S = 2.0

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


class Live(msgspec.Struct, frozen=True):
    status: str = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """`status` is ok, degraded (orders are still taken) or unavailable. A check is ok or says
    why not."""

    status: str
    checks: dict[str, str]


class Checks:
    """`needed` decides whether the process is ready; `informative` is only told. A check that
    does not answer within PATIENCE_S counts as failed."""

    def __init__(
        self, needed: Mapping[str, Check], informative: Mapping[str, Check] | None = None
    ) -> None:
        self._needed = dict(needed)
        self._informative = dict(informative or {})

    async def readiness(self) -> Readiness:
        checks = self._needed | self._informative
        found = await asyncio.gather(*(_ask(check) for check in checks.values()))
        results = dict(zip(checks, found, strict=True))
        failed = {name for name, result in results.items() if result != "ok"}
        status = "unavailable" if failed & set(self._needed) else "degraded" if failed else "ok"
        return Readiness(status, results)


async def _ask(check: Check) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(check) or "ok"
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except Exception as error:  # whatever a check meets is its result
        return str(error) or type(error).__name__


def listeners_trouble(url: str) -> str | None:
    """What is wrong with the groups of the process that answers there, at its /health/ready."""
    try:
        try:
            with _direct.open(url, timeout=PATIENCE_S / 2) as answer:
                body = answer.read()
        except HTTPError as error:
            with error:
                body = error.read()
        checks = msgspec.json.decode(body, type=Readiness).checks
    except (OSError, msgspec.MsgspecError) as error:
        return f"the listeners do not answer: {error}"
    return "; ".join(f"{name}: {why}" for name, why in checks.items() if why != "ok") or None


class HealthController(Controller):
    path = "/health"
    tags = ("health",)

    @get("/live", responses=problems.documented())
    async def live(self) -> Live:
        """200 as long as the process answers."""
        return Live()

    @get(
        "/ready",
        responses={
            **problems.documented(),
            503: ResponseSpec(Readiness, description="Not ready", generate_examples=False),
        },
    )
    async def ready(self, checks: NamedDependency[Checks]) -> Response[Readiness]:
        """200 while orders can be taken, also when the broker is away ("degraded"); else 503."""
        found = await checks.readiness()
        return JsonResponse(found, status_code=503 if found.status == "unavailable" else 200)


def health_api(checks: Checks) -> ServiceApi:
    """The health routes."""
    return ServiceApi([HealthController], {"checks": checks})
