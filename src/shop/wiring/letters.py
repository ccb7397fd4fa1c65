"""What becomes of dead letters in the process that serves the API."""

from collections.abc import Sequence
from functools import partial

from shop.databases import Databases
from shop.db.releasing import release_letters
from shop.db.steward import Steward
from shop.deadletters.api import deadletters_api
from shop.deadletters.destinations import TOPICS, Destinations
from shop.deadletters.discarding import Discards
from shop.deadletters.reading import LetterReader
from shop.deadletters.redrives import Redrives
from shop.deadletters.sending import redrive_steward
from shop.http.service import ServiceApi
from shop.kafka.listener import ListenerRegistry, takes
from shop.printable import shortened, whole
from shop.services import SERVICE_OF_GROUP
from shop.settings import Settings


def destinations(registry: ListenerRegistry) -> Destinations:
    """The groups of the shop that read topics which letters can go to."""
    read_by = {group: _topics_of(registry, group) for group in registry.groups}
    return Destinations({group: topics for group, topics in read_by.items() if topics})


def _topics_of(registry: ListenerRegistry, group: str) -> list[str]:
    sources = registry.sources(group)
    return [topic for topic in TOPICS if any(takes(source, topic) for source in sources)]


def letters_api(settings: Settings, databases: Databases, destinations: Destinations) -> ServiceApi:
    letters = databases.of("deadletters")
    shown = shortened if settings.log.personal_data == "short" else whole
    discards = Discards(letters, partial(_release, databases))
    redrives = Redrives(letters, destinations)
    return deadletters_api(LetterReader(letters, shown), redrives, discards)


def stewards(databases: Databases, destinations: Destinations) -> Sequence[Steward]:
    """What goes on in the background where the API is served."""
    return [redrive_steward(databases.of("deadletters"), destinations)]


def _release(databases: Databases, group: str, letters: Sequence[str]) -> None:
    """What a group of ours holds back behind these letters."""
    service = SERVICE_OF_GROUP.get(group)
    database = databases.existing(service) if service else None
    if database is not None:
        release_letters(database, group, letters)
