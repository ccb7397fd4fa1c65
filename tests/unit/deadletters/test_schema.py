"""Everything that the OpenAPI document says of dead letters is tried, and nothing else answered."""

from typing import Any

import pytest
from schemathesis import GenerationMode

from shop.topics import NEW_ORDER
from tests.unit.deadletters.conftest import Api, Raw
from tests.unit.http import test_schema as schema

ROUTES = {
    ("GET", "/deadletters"),
    ("DELETE", "/deadletters"),
    ("GET", "/deadletters/{letter_id}"),
    ("DELETE", "/deadletters/{letter_id}"),
    ("POST", "/deadletters/redrive"),
    ("GET", "/deadletters/redrives/{redrive_id}"),
}


def test_the_document_describes_all_routes(api: Api) -> None:
    document = api.client.get("/schema").json()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == ROUTES
    assert document["paths"]["/deadletters/redrive"]["post"]["responses"].keys() >= {"200", "202"}
    taken = document["components"]["schemas"]["NewRedrive"]
    assert taken["required"] == ["by"]
    assert taken["additionalProperties"] is False


def say_which(case: Any) -> None:
    """What the document cannot say: something must be said, and `to` and `toGroup` are the shop's.
    Litestar leaves out that an age in a body is 0 or more."""
    leave_out(case)
    if isinstance(case.body, dict):
        case.body |= {"olderThan": 0, "newerThan": 1e9, "to": NEW_ORDER.name, "toGroup": "all"}
    elif case.method == "DELETE":
        case.query = (case.query or {}) | {"olderThan": 0}


leave_out = schema.leave_out_what_only_the_shop_knows


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_every_answer_is_as_documented(
    api: Api, route: tuple[str, str], mode: GenerationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.keeper.fail(Raw(at=1, its_value=b"\xff"), Raw(at=2, its_key=None))
    monkeypatch.setattr(schema, leave_out.__name__, say_which)
    schema.test_every_answer_is_as_documented(api, route, mode)  # type: ignore[arg-type]
