"""What becomes of dead letters in the process that serves the API."""

from collections.abc import Sequence
from functools import partial

from shop.databases import Databases
from shop.db.releasing import release_letters
from shop.db.steward import Steward
from shop.deadletters.api import deadletters_api
from shop.deadletters.discarding import Discards
from shop.deadletters.reading import LetterReader
from shop.deadletters.redrives import Redrives
from shop.deadletters.sending import redrive_steward
from shop.http.service import ServiceApi
from shop.printable import shortened, whole
from shop.services import SERVICE_OF_GROUP
from shop.settings import Settings


def letters_api(settings: Settings, databases: Databases) -> ServiceApi:
    letters = databases.of("deadletters")
    shown = shortened if settings.log.personal_data == "short" else whole
    discards = Discards(letters, partial(_release, databases))
    return deadletters_api(LetterReader(letters, shown), Redrives(letters), discards)


def stewards(databases: Databases) -> Sequence[Steward]:
    """What goes on in the background where the API is served."""
    return [redrive_steward(databases.of("deadletters"))]


def _release(databases: Databases, group: str, letters: Sequence[str]) -> None:
    """What a group of ours holds back behind these letters."""
    service = SERVICE_OF_GROUP.get(group)
    database = databases.existing(service) if service else None
    if database is not None:
        release_letters(database, group, letters)
