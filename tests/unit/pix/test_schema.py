"""Everything that the OpenAPI document says of pix is tried, and nothing else is answered."""

import pytest
from schemathesis import GenerationMode

from tests.unit.http import test_schema as schema
from tests.unit.pix.conftest import Api

ROUTES = {
    ("POST", "/pix"),
    ("GET", "/pix/{identifier}"),
    ("POST", "/pix/keys"),
    ("GET", "/pix/keys"),
}


def test_the_document_describes_all_routes(api: Api) -> None:
    document = api.client.get("/schema").json()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == ROUTES
    assert document["paths"]["/pix/keys"]["post"]["responses"].keys() >= {"200", "201"}
    taken = document["components"]["schemas"]["NewPayment"]
    assert taken["required"] == ["chaveDestino", "chaveOrigem", "valor"]
    assert taken["additionalProperties"] is False


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_every_answer_is_as_documented(
    api: Api, route: tuple[str, str], mode: GenerationMode
) -> None:
    schema.test_every_answer_is_as_documented(api, route, mode)
