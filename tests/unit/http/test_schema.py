"""Everything that the OpenAPI document says is tried, and nothing else is answered."""

from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.unit.http.conftest import Api

ROUTES = {
    ("POST", "/orders"),
    ("GET", "/orders"),
    ("GET", "/orders/{order_id}"),
    ("GET", "/new"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
}


def test_the_document_is_openapi_3_1_of_all_routes(api: Api) -> None:
    document = api.get("/schema").json()
    assert document == api.get("/schema/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == ROUTES
    amount = document["components"]["schemas"]["NewOrder"]["properties"]["amount"]
    assert [one["type"] for one in amount["oneOf"]] == ["number", "string"]


def leave_out_what_only_the_shop_knows(case: Any) -> None:
    """Where a page ends, and which keys and ids are in use."""
    (case.query or {}).pop("cursor", None)
    (case.headers or {}).pop("Idempotency-Key", None)
    if isinstance(case.body, dict) and "id" in case.body:
        case.body["id"] = str(uuid4())


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_every_answer_is_as_documented(
    api: Api, route: tuple[str, str], mode: GenerationMode
) -> None:
    document = schemathesis.openapi.from_url(f"{api.url}/schema/openapi.json")
    method, path = route
    operation = document[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            leave_out_what_only_the_shop_knows(case)
        case.call_and_validate()

    check()
