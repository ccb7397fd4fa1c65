"""Bodies: JSON bytes straight into a handler's type, and values straight into JSON bytes.

Litestar would decode to builtins first, where a decimal loses its digits in a float. A type of
its own says with a classmethod `from_json(value)` how it is made, of an int or a str: numbers
with a point or an exponent arrive as their text. Its ValueError names what is wrong with it.
"""

import re
from functools import cache
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import InternalServerException
from litestar.serialization import default_serializer

from shop.http.problems import FieldError, ProblemError, invalid, readable

_encoder = msgspec.json.Encoder(decimal_format="number")


class JsonRequest(Request[Any, Any, Any]):
    """Decodes the body into the type of the handler's `data` parameter."""

    async def body(self) -> bytes:
        try:
            return await super().body()
        except InternalServerException:  # the client went away; nobody is to be alarmed
            raise ProblemError(400, "The body ended early.") from None

    async def json(self) -> Any:
        media_type = self.content_type[0].lower()
        if media_type != "application/json" and not media_type.endswith("+json"):
            raise ProblemError(415, "The body must be JSON, with Content-Type: application/json.")
        data = self.route_handler.parsed_fn_signature.parameters["data"]
        body = await self.body()
        try:
            return _decoder(data.annotation).decode(body)
        except msgspec.ValidationError as error:
            raise invalid(
                FieldError(pointer=_pointer(str(error)), detail=readable(str(error)))
            ) from None
        except msgspec.DecodeError as error:
            raise _malformed(str(error), body) from None
        except (UnicodeDecodeError, RecursionError) as error:
            raise _malformed(readable(str(error)), b"") from None


class JsonResponse(Response[Any]):
    """Writes a Decimal as a JSON number with every digit."""

    def render(self, content: Any, media_type: str, enc_hook: Any = default_serializer) -> bytes:
        if isinstance(content, bytes | str):
            return super().render(content, media_type, enc_hook)
        return encode(content)


def encode(content: Any) -> bytes:
    return _encoder.encode(content)


@cache
def _decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(annotation, dec_hook=_from_json, float_hook=str)


def _from_json(type_: Any, value: Any) -> Any:
    return type_.from_json(value)


def _pointer(message: str) -> str:
    """The JSON pointer that a message of msgspec is about: `$.a[0].b` is #/a/0/b."""
    path = re.search(r" - at `\$(.*)`\Z", message, re.DOTALL)
    pointer = re.sub(r"\[(\d+)\]", r"/\1", path[1]).replace(".", "/") if path else ""
    named = re.match(r"Object (?:missing required|contains unknown) field `(.*?)`", message)
    if named:
        pointer += "/" + named[1].replace("~", "~0").replace("/", "~1")
    return f"#{pointer}"


def _malformed(reason: str, body: bytes) -> ProblemError:
    """Not JSON at all; the member before the offending byte helps to find it."""
    offset = re.search(r"\(byte (\d+)\)", reason)
    members = re.findall(rb'"([\w-]{1,64})"\s*:', body[: int(offset[1])] if offset else b"")
    reason = reason.removeprefix("JSON is malformed: ")
    pointer = f"#/{members[-1].decode()}" if members else "#"
    return invalid(FieldError(pointer=pointer, detail=f"the body is not JSON: {reason}"))
