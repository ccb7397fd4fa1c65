"""Declaring listeners. `@listener` only marks a method, which stays a plain method.

What a parameter is, its annotation says: the topic's event, `Message[...]` for the event with its
key, headers and position, `Acknowledgment`, or the unit of work of the group's store. All of it is
checked when a container is built, so a wrong declaration stops the start and not the first record.
"""

import functools
import inspect
import operator
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import ListenerDeclarationError
from shop.kafka.retry import Retry
from shop.kafka.topic import Topic, TopicPattern
from shop.kafka.wire import Message

F = TypeVar("F", bound=Callable[..., Any])
Source: TypeAlias = Topic[Any] | TopicPattern[Any]
Once: TypeAlias = Callable[[Message[Any]], str]

_MARK = "__kafka_listener__"


@dataclass(frozen=True)
class Declaration:
    """What `@listener` was told."""

    sources: tuple[Source, ...]
    group: str
    concurrency: int
    once: Once | None
    external: bool = False
    repeatable: bool = False
    retry: Retry | None = None
    hold_back: bool = False
    observer: bool = False

    def __post_init__(self) -> None:
        if self.repeatable and not self.external:
            raise ListenerDeclarationError(
                "repeatable=True is said of an effect with external=True"
            )
        if self.hold_back and self.external:
            raise ListenerDeclarationError(
                f"group {self.group}: an external listener cannot hold keys back: what it holds is "
                "in the store's transaction; drop hold_back=True or external=True"
            )


def every_record(message: Message[Any]) -> str:
    """For `once`: each record counts, also one that is there twice. No receipt is kept; the
    position alone sees to it that none is handled again."""
    return f"{message.topic}[{message.partition}]-{message.offset}"


def listener(
    *sources: Source,
    group: str,
    concurrency: int = 1,
    once: Once | None = None,
    external: bool = False,
    repeatable: bool = False,
    retry: Retry | None = None,
    hold_back: bool = False,
    observer: bool = False,
) -> Callable[[F], F]:
    """Mark a method as a listener of topics, or of one TopicPattern, in a consumer group.

    `concurrency`: consumers in one process; more than the topic has partitions stay idle.
    `once`: what makes the effect one; a function from the Message to a string. By default the
    event id, so that a record published twice is handled once.
    `external`: the effect is outside the store (an e-mail, a call). The listener is then called
    outside of any transaction and each record is settled by itself right after: the effect happens
    at least once, and a crash can repeat only the one that was being done.
    `repeatable`: of an external listener whose effect may happen again without harm, like a file
    replaced by the same. A polled batch is then settled in one transaction after its listeners ran,
    and the listener may take a unit of work, which only takes notes for that transaction.
    `retry`: how often and when a record that fails is tried again; by default the group's.
    `hold_back`: once a record became a dead letter, later ones of its key become dead letters too,
    in their order, until all of them are redriven or discarded. By default they go on.
    `observer`: it is called also for records that are redriven to another group.
    """
    if not sources:
        raise ListenerDeclarationError("@listener needs a topic: @listener(TOPIC, group=…)")
    for source in sources:
        if not isinstance(source, Topic | TopicPattern):
            raise ListenerDeclarationError(
                f"@listener takes Topic objects, not {source!r}: declare it as Topic(name, codec)"
            )
    if not group or not group.strip():
        raise ListenerDeclarationError("@listener needs a group: @listener(TOPIC, group='fraud')")
    if concurrency < 1:
        raise ListenerDeclarationError(f"concurrency is 1 or more, not {concurrency}")
    declaration = Declaration(
        sources, group, concurrency, once, external, repeatable, retry, hold_back, observer
    )

    def mark(function: F) -> F:
        setattr(function, _MARK, declaration)
        return function

    return mark


# Where an endpoint finds the argument of each kind.
_KINDS = ("event", "message", "work", "ack")


class Endpoint:
    """A marked method with its parameters understood. Immutable; as thread-safe as the method."""

    def __init__(
        self, method: Callable[..., Any], declaration: Declaration, work_type: type | None
    ) -> None:
        self.declaration = declaration
        self.name = getattr(method, "__qualname__", repr(method))
        self.title = self.name.split(".")[0]  # the class: how the correlation id names this hop
        self._method = method
        kinds = [
            self._kind(parameter, hint, work_type)
            for parameter, hint in _parameters(method, self.name)
        ]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ListenerDeclarationError(f"{self.name} takes {kind} twice")
        self.wants_ack = "ack" in kinds
        self.wants_work = "work" in kinds
        if declaration.external and not declaration.repeatable and self.wants_work:
            raise ListenerDeclarationError(
                f"{self.name} is external, so it is called outside the transaction: take no unit "
                "of work, or drop external=True, or add repeatable=True"
            )
        if inspect.iscoroutinefunction(method):
            raise ListenerDeclarationError(
                f"{self.name} is async; listeners are plain functions, run by the group's threads"
            )
        if not {"event", "message"} & set(kinds):
            raise ListenerDeclarationError(f"{self.name} takes no event, so why listen?")
        self._pick = operator.itemgetter(*map(_KINDS.index, kinds))
        self._single = len(kinds) == 1

    def source_of(self, topic: str) -> Source | None:
        """The declared source that a topic's records belong to."""
        for source in self.declaration.sources:
            if takes(source, topic):
                return source
        return None

    def __call__(self, message: Message[Any], work: Any, ack: Acknowledgment) -> bool:
        """Call the listener; whether the record counts as handled."""
        arguments = self._pick((message.event, message, work, ack))
        if self._single:
            self._method(arguments)
        else:
            self._method(*arguments)
        return ack.acknowledged if self.wants_ack else True

    def _kind(self, parameter: inspect.Parameter, hint: Any, work_type: type | None) -> str:
        where = f"parameter {parameter.name!r} of listener {self.name}"
        if hint is Acknowledgment:
            return "ack"
        if work_type is not None and inspect.isclass(hint) and issubclass(work_type, hint):
            return "work"
        for source in self.declaration.sources:
            expected = source.event_type
            if hint is Message or typing.get_origin(hint) is Message:
                inside = typing.get_args(hint)
                if inside and inside[0] not in (expected, Any):
                    raise ListenerDeclarationError(
                        f"{where} is Message[{_named(inside[0])}], but {source} carries "
                        f"{_named(expected)}"
                    )
                kind = "message"
            elif hint == expected or hint is Any:
                kind = "event"
            else:
                raise ListenerDeclarationError(
                    f"{where} is annotated {_named(hint)}; it can be {_named(expected)} (what "
                    f"{source} carries), Message[{_named(expected)}], Acknowledgment"
                    + (f" or {work_type.__name__}" if work_type else "")
                    + ("" if work_type else " (this group has no store, so no unit of work)")
                )
        return kind


def takes(source: Source, topic: str) -> bool:
    """Whether a topic's records belong to a source."""
    return source.matches(topic) if isinstance(source, TopicPattern) else source.name == topic


class ListenerRegistry:
    """All listeners of a program, by group. Filled before containers are built; not thread-safe."""

    def __init__(self) -> None:
        self._groups: dict[str, list[tuple[Callable[[], Callable[..., Any]], Declaration]]] = {}
        self._classes: list[type] = []

    def add(self, service: Any, build: Callable[[], Any] | None = None) -> None:
        """Take in every marked method of an object, or a marked function.

        A class may be given with how to build its object, which then happens only when a group of
        it is started."""
        if hasattr(service, _MARK):
            self._note(lambda: service, getattr(service, _MARK))
            return
        cls = service if inspect.isclass(service) else type(service)
        make = functools.cache(build or cls) if inspect.isclass(service) else lambda: service
        marked = [
            (name, getattr(function, _MARK))
            for name, function in inspect.getmembers(cls, callable)
            if hasattr(function, _MARK)
        ]
        if not marked:
            raise ListenerDeclarationError(f"{cls.__name__} has no method marked with @listener")
        self._classes.append(cls)
        for name, declaration in marked:
            self._note(functools.partial(_method_of, make, name), declaration)

    def unbuilt(self) -> "ListenerRegistry":
        """The same listeners of classes, to be asked what they declare: none can be called, for
        nothing is built."""
        found = ListenerRegistry()
        for service in self._classes:
            found.add(service, functools.partial(object.__new__, service))
        return found

    def _note(self, method: Callable[[], Callable[..., Any]], declaration: Declaration) -> None:
        self._groups.setdefault(declaration.group, []).append((method, declaration))

    @property
    def groups(self) -> list[str]:
        return list(self._groups)

    def sources(self, group: str) -> list[Source]:
        """What a group listens to; nothing is built. Empty for one that is not here."""
        declarations = [declaration for _, declaration in self._groups.get(group, ())]
        return [source for declaration in declarations for source in declaration.sources]

    def endpoints(self, group: str, work_type: type | None = None) -> list[Endpoint]:
        """The checked listeners of a group. Raises ListenerDeclarationError."""
        if group not in self._groups:
            known = ", ".join(self.groups)
            raise ListenerDeclarationError(f"there is no group {group!r}; there are: {known}")
        endpoints = [Endpoint(method(), d, work_type) for method, d in self._groups[group]]
        sources = [s.name for e in endpoints for s in e.declaration.sources]
        for name in sources:
            if sources.count(name) > 1:
                raise ListenerDeclarationError(
                    f"two listeners of group {group} take {name}; one record, one listener: "
                    "give one of them a group of its own"
                )
        if len({(e.declaration.external, e.declaration.repeatable) for e in endpoints}) > 1:
            raise ListenerDeclarationError(
                f"group {group} mixes external listeners with others; give them groups of their own"
            )
        return endpoints


def _method_of(make: Callable[[], Any], name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(make(), name)
    return method


def _parameters(method: Callable[..., Any], name: str) -> Sequence[tuple[inspect.Parameter, Any]]:
    try:
        hints = typing.get_type_hints(method)
    except NameError as error:
        raise ListenerDeclarationError(
            f"an annotation of {name} cannot be read: {error}; import it outside TYPE_CHECKING"
        ) from None
    parameters = list(inspect.signature(method).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ListenerDeclarationError(f"{name} takes *{parameter.name}; name its parameters")
        if parameter.name not in hints:
            raise ListenerDeclarationError(
                f"parameter {parameter.name!r} of {name} has no annotation, which says what it is"
            )
    return [(parameter, hints[parameter.name]) for parameter in parameters]


def _named(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")
