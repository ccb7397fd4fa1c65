"""The OpenAPI document: what Litestar derives from the handlers, made true where it is not."""

from decimal import Decimal
from typing import Any

import msgspec
from litestar import Request, Response, Router
from litestar._openapi.schema_generation import SchemaCreator
from litestar._openapi.schema_generation.plugins.struct import StructSchemaPlugin
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from shop.http.context import HEADER
from shop.kafka import correlation

_TEXT = {"type": "string"}
_GIVEN = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "What the correlation id of this request begins with.",
    "schema": _TEXT | {"pattern": f"^{correlation.PATTERN}$"},
}
_ANSWERED = {"description": "Finds all that came of this request.", "schema": _TEXT}


def openapi_config() -> OpenAPIConfig:
    """Plain JSON at /schema and /schema/openapi.json; no pages, nothing from elsewhere."""
    return OpenAPIConfig(
        title="shop",
        version="1.0.0",
        description="Orders are taken here; what happens to them travels on Kafka topics. "
        "Amounts are exact decimals: read the number's digits, not a float.",
        render_plugins=[_Document(media_type=MediaType.JSON)],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_no_page
        ),
    )


class ExactTypes(OpenAPISchemaPlugin):
    """Decimals are numbers; a type with `json_schema()` says itself what it takes; a struct that
    refuses unknown fields says so."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        type_ = field_definition.annotation
        return isinstance(type_, type) and (
            type_ is Decimal
            or hasattr(type_, "json_schema")
            or (issubclass(type_, msgspec.Struct) and type_.__struct_config__.forbid_unknown_fields)
        )

    def to_openapi_schema(
        self, field_definition: FieldDefinition, schema_creator: SchemaCreator
    ) -> Schema:
        type_ = field_definition.annotation
        if type_ is Decimal:
            return Schema(type=OpenAPIType.NUMBER, description="An exact decimal.")
        if hasattr(type_, "json_schema"):
            return _schema(type_.json_schema())
        schema = StructSchemaPlugin().to_openapi_schema(field_definition, schema_creator)
        schema.additional_properties = False
        return schema


class _Document(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        document: dict[str, Any] = _true(openapi_schema)
        for path in document["paths"].values():
            for operation in path.values():
                operation.setdefault("parameters", []).append(_GIVEN)
                for response in operation["responses"].values():
                    response.setdefault("headers", {})[HEADER] = _ANSWERED
        return msgspec.json.encode(document)


def _schema(described: dict[str, Any]) -> Schema:
    return Schema(
        description=described["description"],
        one_of=[
            Schema(
                type=OpenAPIType(one["type"]),
                pattern=one.get("pattern"),
                multiple_of=one.get("multipleOf"),
                exclusive_minimum=one.get("exclusiveMinimum"),
                exclusive_maximum=one.get("exclusiveMaximum"),
            )
            for one in described["oneOf"]
        ],
    )


def _true(node: Any) -> Any:
    """Corrects what Litestar derives: patterns are ECMA's (^ and $ for \\A and \\Z), a parameter
    in a URL or a header cannot be null, and a header has a schema."""
    if isinstance(node, list):
        return [_true(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _true(value) for key, value in node.items()}
    if isinstance(node.get("pattern"), str):
        node["pattern"] = node["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    if "in" in node and "oneOf" in node.get("schema", {}):
        schema = node["schema"]
        others = [one for one in schema.pop("oneOf") if one != {"type": "null"}]
        node["schema"] = schema | (others[0] if len(others) == 1 else {"oneOf": others})
    if "content" in node and "headers" in node:
        node["headers"] = {
            name: header | {"schema": _TEXT, "required": True}
            for name, header in node["headers"].items()
        }
    return node


def _no_page(response: Response[Any]) -> Response[Any]:
    if response.status_code == 404:  # Litestar's own is an HTML page
        raise NotFoundException
    return response
