"""What a mail looks like on the wire, made from strings that may come from strangers."""

import re
from base64 import b64encode
from binascii import b2a_qp
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256

from shop.kafka.correlation import bounded

_ATOM = r'[^\s()<>\[\]:;@\\,."]+'
_ADDRESS = re.compile(rf"{_ATOM}(\.{_ATOM})*@{_ATOM}(\.{_ATOM})*")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN_VALUE = re.compile(r"(?!.*=\?)[!-~]([ -~]{0,900}[!-~])?")
_SENTENCE = re.compile(r"\s*(.*?[.!?](?=\s)|.*)")
_PLAIN_TEXT = re.compile(r"([\t -~]{0,900}\n)*[\t -~]{0,900}")  # RFC 5322: a line has 998


def is_address(address: str) -> bool:
    """Whether a mail can be sent to it: local@domain, non-ASCII letters allowed (RFC 6531);
    no quoted local part, no address literal."""
    if not address.isprintable():
        return False
    local, _, _ = address.partition("@")
    lengths_fit = len(address.encode()) <= 254 and len(local.encode()) <= 64  # RFC 5321
    return lengths_fit and _ADDRESS.fullmatch(address) is not None


def compose(sender: str, recipient: str, text: str, event_id: str, correlation_id: str) -> bytes:
    """The mail, lines ending in CRLF. Both addresses have been checked with is_address; the other
    strings can be anything: a lone surrogate becomes U+FFFD, a line end is a line end, and all
    else arrives as it is."""
    text = re.sub(r"\r\n?", "\n", _without_surrogates(text))
    plain = _PLAIN_TEXT.fullmatch(text) is not None
    # By hand and not by EmailMessage: its folding of long words is lossy and in some Pythons lets
    # line breaks through (CVE-2024-6923), and it takes most of the time that a mail costs here.
    headers = {
        "From": sender,
        "To": recipient,
        "Subject": _encoded(subject(text)),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": message_id(event_id, sender),
        "Auto-Submitted": "auto-generated",
        "X-Correlation-Id": _encoded(_without_surrogates(bounded(correlation_id))),
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "7bit" if plain else "quoted-printable",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = text.encode() if plain else b2a_qp(text.encode(), istext=True)
    return head.encode() + b"\r\n" + body.replace(b"\n", b"\r\n") + b"\r\n"


def message_id(event_id: str, sender: str) -> str:
    """The same for the same event, another for any other one."""
    if not _PLAIN_ID.fullmatch(event_id):  # the dot keeps these apart from the plain ones
        event_id = f"sha256.{sha256(event_id.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"<{event_id}@{sender.rpartition('@')[2]}>"


def subject(text: str) -> str:
    """The first sentence of the text, shortened."""
    first = _SENTENCE.match(text[:500])
    sentence = first[1] if first else ""
    words = " ".join("".join(c if c.isprintable() else " " for c in sentence).split())
    return (words if len(words) <= 70 else f"{words[:69]}…") or "Your order"


def _encoded(value: str) -> str:
    """A header's value; as encoded words (RFC 2047), folded, unless it is plain and fits a line."""
    if not value or _PLAIN_VALUE.fullmatch(value):
        return value
    step = 45 if value.isascii() else 11  # at most 45 bytes, so that a word has at most 75
    pieces = [value[i : i + step].encode() for i in range(0, len(value), step)]
    return "\r\n ".join(f"=?utf-8?b?{b64encode(piece).decode()}?=" for piece in pieces)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
