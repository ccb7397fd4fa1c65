"""A report as one HTML page: nothing from elsewhere, no scripts, fit to be printed."""

from base64 import b64encode
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from html import escape

from shop.printable import printable
from shop.reports.content import NO_ORDERS, Content, day_and_time, written

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #6b7280; --rule: #d9dce1;
  --approved: #2f855a; --rejected: #c53030; --undecided: #8a94a3 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --faint: #9aa2ad;
  --rule: #333840; --approved: #48bb78; --rejected: #f56565; --undecided: #7b8594 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { margin: .2rem 0 } .faint { color: var(--faint) }
.table { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid var(--rule) }
thead { display: table-header-group } tr { break-inside: avoid }
.number { text-align: right; font-variant-numeric: tabular-nums } code { font-size: .9em }
.approved { color: var(--approved); fill: var(--approved) }
.rejected { color: var(--rejected); fill: var(--rejected) }
.undecided { color: var(--undecided); fill: var(--undecided) }
svg { display: block; width: 100%; max-width: 30rem } svg text { fill: var(--ink); font-size: 13px }
@media print { body { margin: 0; max-width: none; font-size: 10pt } }
"""


def as_page(content: Content) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style>
<title>Reading report for {escape(content.email)}</title>
</head>
<body>
<h1>Reading report</h1>
<p>{escape(content.email)}</p>
<p class="faint">Created for {escape(content.uuid)}</p>
<p class="faint">Written {_time(content.written_at)}</p>
<h2>Totals</h2>
{_chart(content)}
{_totals(content)}
<h2>Orders: {escape(content.shown)}</h2>
{_orders(content)}
</body>
</html>
"""


def security_policy(page: str) -> str:
    """The Content-Security-Policy under which a page shows as it was written: its own style, known
    by its hash, and nothing else."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _time(at: datetime) -> str:
    return f'<time datetime="{at.isoformat()}">{day_and_time(at)} UTC</time>'


def _chart(content: Content) -> str:
    """A bar per decision, as long as its share of the largest amount."""
    amounts = {name: total.amount or Decimal() for name, total in content.totals.items()}
    largest = max(amounts.values())
    if content.total.amount is None or largest <= 0:
        return ""
    bars = [
        f'<text x="0" y="{20 * row + 14}">{name}</text>'
        f'<rect class="{name}" x="90" y="{20 * row + 3}" height="14" '
        f'width="{float(max(amount, Decimal()) / largest) * 300:.1f}"/>'
        for row, (name, amount) in enumerate(amounts.items())
    ]
    height = 20 * len(bars)
    return (
        f'<svg viewBox="0 0 400 {height}" role="img" aria-label="Amounts by decision">'
        + "".join(bars)
        + "</svg>"
    )


def _totals(content: Content) -> str:
    rows = "\n".join(
        f'<tr><td class="{name}">{name}</td><td class="number">{total.count}</td>'
        f'<td class="number">{written(total.amount)}</td></tr>'
        for name, total in content.summary
    )
    return f"""<table id="totals">
<thead><tr><th>Decision</th><th class="number">Count</th><th class="number">Amount</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>"""


def _orders(content: Content) -> str:
    if not content.lines:
        return f"<p>{NO_ORDERS}</p>"
    rows = "\n".join(
        f"<tr><td>{day_and_time(line.at)}</td>"
        f"<td><code>{escape(printable(line.order_id))}</code></td>"
        f'<td class="number">{written(line.amount)}</td>'
        f'<td class="{line.decision}">{line.decision}</td></tr>'
        for line in content.lines
    )
    return f"""<div class="table"><table id="orders">
<thead><tr><th>Time (UTC)</th><th>Order</th><th class="number">Amount</th><th>Decision</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table></div>"""
