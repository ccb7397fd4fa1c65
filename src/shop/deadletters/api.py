from shop.deadletters.controller import LetterController
from shop.deadletters.discarding import Discards
from shop.deadletters.reading import LetterReader
from shop.deadletters.redrives import Redrives
from shop.http.service import ServiceApi


def deadletters_api(reader: LetterReader, redrives: Redrives, discards: Discards) -> ServiceApi:
    """The routes of dead letters."""
    return ServiceApi(
        [LetterController],
        {"letters": reader, "redrives": redrives, "discards": discards},
        close=[reader.close, redrives.close],
    )
