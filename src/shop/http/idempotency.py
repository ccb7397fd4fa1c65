"""The header Idempotency-Key: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header."""

from typing import Annotated, TypeAlias

from litestar.params import HeaderParameter

from shop.http.problems import ProblemError

IdempotencyKey: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=r"\A[\x20-\x7e]{1,255}\Z",
        description="The same key with the same body gets the first answer again.",
    ),
]


class KeyReused(ProblemError):
    """The key came before with another body."""

    def __init__(self) -> None:
        super().__init__(
            422,
            "This Idempotency-Key came with another request before.",
            kind="idempotency-key-reused",
        )
