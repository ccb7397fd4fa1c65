from shop.http.service import ServiceApi
from shop.http.waiting import LongPoll
from shop.pix.controller import PixController
from shop.pix.keys import KeyDesk
from shop.pix.reading import PaymentView, PixReader
from shop.pix.transfer import PaymentDesk


def pix_api(
    payments: PaymentDesk, keys: KeyDesk, reader: PixReader, outcomes: LongPoll[PaymentView]
) -> ServiceApi:
    """The routes of payments and their keys."""
    return ServiceApi(
        [PixController],
        {
            "payment_desk": payments,
            "key_desk": keys,
            "pix_reader": reader,
            "payment_outcomes": outcomes,
        },
        stop_waiting=[outcomes.stop],
        close=[payments.close, keys.close, reader.close],
    )
