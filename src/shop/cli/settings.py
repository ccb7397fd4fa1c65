from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shop.cli.context import settings_of
from shop.cli.output import print_table

if TYPE_CHECKING:
    from pydantic import BaseModel

_DECLARED = "as the listener says"


def settings(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every setting: its environment variable, its value now, its default.

    A value comes from the environment, else from --settings FILE, else the default. In the file,
    SHOP_HTTP__PORT is `port` in the section [http]. Secrets are shown as stars.
    """
    from shop.settings import PREFIX, Listener, Settings, masked

    values = masked(settings_of(context))
    rows = [
        (PREFIX + "__".join(path).upper(), _at(values, path), default)
        for path, default in _leaves(Settings)
    ]
    groups = values["listeners"]
    rows += [
        (f"{PREFIX}LISTENERS__{group.upper()}__{name.upper()}", value, None)
        for group, overrides in groups.items()
        for name, value in overrides.items()
        if value is not None
    ]
    if as_json:
        import json

        typer.echo(
            json.dumps({n: {"value": v, "default": d} for n, v, d in rows}, indent=2, default=str)
        )
        return
    if not groups:
        own = f"{PREFIX}LISTENERS__<GROUP>__"
        for name in Listener.model_fields:
            unset = f"{PREFIX}KAFKA__MAX_POLL_RECORDS" if name == "max_poll_records" else _DECLARED
            rows.append((f"{own}{name.upper()}", None, unset))
    shown = [{"setting": name, "value": value, "default": default} for name, value, default in rows]
    print_table(shown, ["setting", "value", "default"])


def _leaves(model: "type[BaseModel]", path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            yield from _leaves(type(default), (*path, name))
        elif not isinstance(default, dict):
            yield (*path, name), default


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values
