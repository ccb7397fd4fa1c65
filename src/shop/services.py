"""Which services there are: what each group of listeners belongs to."""

# Which service's database a group belongs to.
SERVICE_OF_GROUP = {
    "fraud": "fraud",
    "email-new-order": "email",
    "email": "email",
    "users": "users",
    "batch": "users",
    "orders": "orders",
    "log": "log",
    "pix": "pix",
    "reports": "reports",
    "reports-orders": "reports",
    "deadletter": "deadletters",
}

# Services that the API writes for: it relays what they send.
API_SERVICES = ("orders", "pix", "reports", "deadletters")
