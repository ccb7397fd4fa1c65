"""A shop of its own under load, whose processes are killed and frozen at random; then an audit."""

from shop.torture.faults import Fault, plan
from shop.torture.orders import Orders
from shop.torture.outcome import Outcome
from shop.torture.place import CannotTorture, Place, own_settings
from shop.torture.run import Torture

__all__ = [
    "CannotTorture",
    "Fault",
    "Orders",
    "Outcome",
    "Place",
    "Torture",
    "own_settings",
    "plan",
]
