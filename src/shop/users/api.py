from shop.http.service import ServiceApi
from shop.users.controller import UserController
from shop.users.reading import UserReader


def users_api(reader: UserReader) -> ServiceApi:
    """The routes of users."""
    return ServiceApi([UserController], {"users": reader}, close=[reader.close])
