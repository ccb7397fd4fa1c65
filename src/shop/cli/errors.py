"""From an error to one line, on stderr or in the log of a process, and an exit code."""

import logging
import sys
import traceback

FAILED, MISUSED, LISTENER_GAVE_UP, STALLED, UNEXPECTED = 1, 2, 3, 4, 70

# By name, since most of their modules are too heavy to import for a command that does not.
_CODES = {
    "shop.settings.SettingsError": MISUSED,
    "shop.watch.GroupDied": LISTENER_GAVE_UP,
    "shop.watch.Stalled": STALLED,
    "shop.kafka.errors.PositionLost": LISTENER_GAVE_UP,
    "shop.kafka.errors.KafkaError": FAILED,
    "shop.broker.errors.BrokerError": FAILED,
    "shop.db.schema.SchemaError": FAILED,
    "shop.email.server.MailServerError": FAILED,
    "shop.http.server.HttpError": FAILED,
    "shop.supervisor.GaveUp": FAILED,
}
_HINTS = {
    "shop.kafka.errors.TopicMissing": "; `shop topics create` creates what is missing",
    "shop.kafka.errors.BrokerUnreachable": "; `shop broker start` starts one here, and "
    "SHOP_KAFKA__BOOTSTRAP_SERVERS says where others are",
}


class CommandFailed(Exception):
    """What a command was asked for cannot be done; the message is one line for the user."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def report(error: Exception, debug: bool = False, log: logging.Logger | None = None) -> int:
    """Say in one line what went wrong; the exit code for it. `log`: of a process, which then has
    that line, with the traceback of what was not foreseen."""
    tell = log.error if log else say
    if debug:
        traceback.print_exception(error)
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    code = next((_CODES[kind] for kind in kinds if kind in _CODES), None)
    if isinstance(error, CommandFailed):
        code = error.code
    if code is not None:
        hint = next((_HINTS[kind] for kind in kinds if kind in _HINTS), "")
        tell(_on_one_line(f"{error}{hint}"))
        return code
    what = _on_one_line(f"unexpected {type(error).__name__}: {error}")
    if log:
        log.critical(what, exc_info=error)
    else:
        say(f"{what}; `shop --debug …` shows where it comes from")
    return UNEXPECTED


def say(message: str) -> None:
    """One line to the user, next to and not in what the command prints."""
    print(f"shop: {_on_one_line(message)}", file=sys.stderr, flush=True)


def _on_one_line(message: str) -> str:
    return " ".join(message.split())
