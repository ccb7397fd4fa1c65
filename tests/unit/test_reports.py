import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.http.moment import moment
from shop.kafka import correlation
from shop.kafka.errors import StoreUnavailable
from shop.reports.content import MOST_SHOWN, TOO_LONG, Content, Line, content_of
from shop.reports.files import ReportFiles, file_name
from shop.reports.listeners import run_of
from shop.reports.model import Decision
from shop.reports.page import as_page, security_policy
from shop.reports.text import as_text

UUID = "85268c5a-2b6e-4f0a-a7b1-6f3a3e0c9d11"
WRITTEN_AT = moment(1_795_349_555_000)  # 2026-11-22 12:12:35 UTC

A, R, U = Decision.APPROVED, Decision.REJECTED, Decision.UNDECIDED


def content(*orders: tuple[str, Decision], email: str | None = "ana@example.com") -> Content:
    lines = [
        Line(f"order-{number}", moment(1_795_000_000_000 + number * 1000), Decimal(amount), what)
        for number, (amount, what) in enumerate(orders)
    ]
    return content_of(UUID, email, WRITTEN_AT, lines)


class Page(HTMLParser):
    """The cells of each table by its id, all text, and every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self._table = ""
        self.feed(page)
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect"):
            self._open.append(tag)
        if tag == "table":
            self._table = dict(attrs)["id"] or ""
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if "td" in self._open or "th" in self._open:
            self.tables[self._table][-1][-1] += data
        if "style" not in self._open:
            self.text += data


def rows(text: str, heading: str) -> list[list[str]]:
    """The table under a heading of the text, cell by cell."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith(heading))
    table = []
    for line in lines[start + 1 :]:
        if not line:
            return table
        table.append(re.split(r" {2,}", line))
    raise AssertionError("the table does not end")


def test_the_text_tells_who_when_each_order_and_the_totals() -> None:
    text = as_text(content(("10.5", A), ("4513.37", R), ("3", A), ("0.01", U)))
    lines = text.split("\n")
    assert f"Created for {UUID}" in lines
    assert "Customer    ana@example.com" in lines
    assert "Written     2026-11-22 12:12:35 UTC" in lines
    assert rows(text, "Time (UTC)") == [
        ["2026-11-18 11:06:40", "order-0", "10.50", "approved"],
        ["2026-11-18 11:06:41", "order-1", "4513.37", "rejected"],
        ["2026-11-18 11:06:42", "order-2", "3.00", "approved"],
        ["2026-11-18 11:06:43", "order-3", "0.01", "undecided"],
    ]
    assert [[cell.strip() for cell in row] for row in rows(text, "Decision")] == [
        ["approved", "2", "13.50"],
        ["rejected", "1", "4513.37"],
        ["undecided", "1", "0.01"],
        ["all", "4", "4526.88"],
    ]


def test_amounts_stand_point_under_point() -> None:
    text = as_text(content(("10.5", A), ("4513.375", R), ("3", A)))
    points = {line.index(".") for line in text.split("\n") if "order-" in line}
    assert len(points) == 1


def test_the_page_tells_the_same_as_the_text() -> None:
    one = content(("10.5", A), ("4513.37", R), ("3", A))
    text, page = as_text(one), Page(as_page(one))
    assert f"Created for {UUID}" in page.text
    assert "ana@example.com" in page.text
    assert page.tables["orders"][1:] == rows(text, "Time (UTC)")
    assert page.tables["totals"][1:] == [
        [cell.strip() for cell in row] for row in rows(text, "Decision")
    ]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(as_page(content(("1", A), ("2", R))))
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "a", "form", "object"})
    names = {name for _, attributes in page.tags for name in attributes}
    assert names.isdisjoint({"src", "href", "style"})
    assert not any(name.startswith("on") for name in names)


def test_the_chart_draws_each_decisions_share_of_the_largest() -> None:
    page = Page(as_page(content(("100", A), ("50", R))))
    bars = {at["class"]: at["width"] for tag, at in page.tags if tag == "rect"}
    assert bars == {"approved": "300.0", "rejected": "150.0", "undecided": "0.0"}


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=y>'])
def test_what_a_stranger_wrote_is_shown_and_not_obeyed(hostile: str) -> None:
    line = Line(hostile, WRITTEN_AT, Decimal(1), A)
    page = Page(as_page(content_of(hostile, hostile, WRITTEN_AT, [line])))
    assert f"Created for {hostile}" in page.text
    assert page.tables["orders"][1][1] == hostile
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img"})


def test_text_stays_on_its_line_and_out_of_the_terminals_way() -> None:
    line = Line("a\nb", WRITTEN_AT, Decimal(1), A)
    text = as_text(content_of("x\n\x1b[2J", "y\r\nz", WRITTEN_AT, [line]))
    assert r"Created for x\n\x1b[2J" in text.split("\n")
    assert r"Customer    y\r\nz" in text.split("\n")
    assert rows(text, "Time (UTC)")[0][1] == r"a\nb"


def test_totals_are_exact_whatever_the_digits() -> None:
    long = "3443.9094220305460112055800278186798095703125"
    text = as_text(content((long, A), ("0.1", A), ("0.2", A), ("99999999999999999999999999.9", R)))
    totals = [[cell.strip() for cell in row] for row in rows(text, "Decision")]
    assert totals[0][2] == "3444.2094220305460112055800278186798095703125"
    assert totals[3][2] == "100000000000000000000003444.1094220305460112055800278186798095703125"


@pytest.mark.parametrize(
    "amount", ["1E+999999999", "1E-999999999", "9" * 5000, "-1", "0", "1E+100", "1E-400"]
)
def test_no_amount_can_blow_a_report_up(amount: str) -> None:
    one = content((amount, A), ("1", A), (amount, R))
    text = as_text(one)
    assert len(text) < 50_000
    assert len(Page(as_page(one)).tables["orders"]) == 4
    shown = rows(text, "Time (UTC)")[0][2]
    assert Decimal(shown) == Decimal(amount)


def test_a_sum_that_would_be_too_long_is_not_guessed() -> None:
    text = as_text(content(("1E+999999999", A), ("1", A), ("2", R)))
    totals = [[cell.strip() for cell in row] for row in rows(text, "Decision")]
    assert [row[2] for row in totals] == [TOO_LONG, "2.00", "0.00", TOO_LONG]


def test_of_thousands_of_orders_the_newest_are_shown_and_all_are_counted() -> None:
    count = MOST_SHOWN + 500
    one = content(*[("0.01", A)] * count)
    text, page = as_text(one), Page(as_page(one))
    said = f"{count}, the newest {MOST_SHOWN} are shown"
    assert f"Orders      {said}" in text.split("\n")
    assert f"Orders: {said}" in page.text
    table = rows(text, "Time (UTC)")
    assert (table[0][1], table[-1][1], len(table)) == ("order-500", "order-1499", MOST_SHOWN)
    assert len(page.tables["orders"]) == 1 + MOST_SHOWN
    assert page.tables["totals"][1] == ["approved", "1500", "15.00"]


def test_a_customer_nobody_knows_gets_a_report_too() -> None:
    one = content(email=None)
    assert "Customer    unknown customer" in as_text(one).split("\n")
    assert "No orders yet." in as_text(one)
    assert "No orders yet." in Page(as_page(one)).text


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    page = as_page(content(("1", A)))
    policy = security_policy(page)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert security_policy(page.replace("</style>", "x</style>", 1)) != policy


def test_a_run_is_found_in_the_correlation_id_through_whatever_stood_between() -> None:
    run, other = UUID, "11111111-1111-4111-a111-111111111111"
    ours = correlation.sent_to(correlation.begin("ReportController", run), "ALL")
    java = correlation.sent_to(correlation.through(ours, "BatchSendMessageService"), "ONE")
    given = correlation.through(f"ReportController({other})", "ReportController", run)
    assert run_of(ours) == run_of(java) == run_of(given) == run
    for _ in range(100):
        java = correlation.through(java, "Hop")
    assert run_of(java) == run
    assert run_of("BatchSendMessageService(x)-_ONE(y)") is None


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> ReportFiles:
    return ReportFiles(tmp_path / "reports")


def reports(files: ReportFiles) -> Iterator[Path]:
    """Every file of the directory, but for the locks of those who write."""
    for path in files.directory.rglob("*"):
        if path.is_file() and path.name != "lock":
            yield path.relative_to(files.directory)


def test_a_report_lies_in_the_folder_of_its_first_two_characters(files: ReportFiles) -> None:
    files.write(UUID, {".txt": "a", ".html": "b"})
    assert sorted(map(str, reports(files))) == [f"85/{UUID}.html", f"85/{UUID}.txt"]
    files.write(UUID, {".txt": "c", ".html": "d"})
    assert files.read(UUID, ".txt") == "c"
    assert files.read(UUID, ".html") == "d"
    assert len(list(reports(files))) == 2


@given(st.text())
def test_any_text_gets_a_name_that_stays_in_its_folder(uuid: str) -> None:
    name = file_name(uuid)
    assert re.fullmatch(r"[a-z0-9-]{36,40}", name)
    assert file_name(uuid) == name


def test_odd_names_are_no_ones_else() -> None:
    odd = ["../../etc/passwd", "", ".", "a/b", "a\0b", UUID.upper(), UUID + "\n", "é", "é" * 10_000]
    assert len({file_name(one) for one in odd}) == len(odd)
    assert all(file_name(one).startswith("odd-") for one in odd)
    assert file_name(UUID) == UUID


def test_what_a_killed_writer_left_is_swept_by_the_next(files: ReportFiles) -> None:
    killed = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from shop.reports import files

        def flushed_and_killed(path, content):
            path.write_text(content)
            os.kill(os.getpid(), signal.SIGKILL)

        files._flushed = flushed_and_killed
        files.ReportFiles(Path(sys.argv[1])).write("85-killed", {".txt": "half"})
    """)
    subprocess.run([sys.executable, "-c", killed, str(files.directory)], check=False)
    assert [path.suffix for path in reports(files)] == [".txt"]
    files.write(UUID, {".txt": "whole"})
    assert list(map(str, reports(files))) == [f"85/{UUID}.txt"]


def test_a_writer_that_lives_is_not_swept(files: ReportFiles) -> None:
    files.write(UUID, {".txt": "first"})
    (own,) = (path for path in (files.directory / ".writing").iterdir() if path.is_dir())
    (own / "in-hand.txt").write_text("half")
    ReportFiles(files.directory).write(UUID, {".txt": "second"})
    assert (own / "in-hand.txt").exists()
    files.write(UUID, {".txt": "third"})
    assert files.read(UUID, ".txt") == "third"


def test_a_folder_that_cannot_be_written_to_is_waited_for(files: ReportFiles) -> None:
    files.directory.write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailable, match="reports cannot be written to"):
        files.write(UUID, {".txt": "a"})
    files.directory.unlink()
    files.write(UUID, {".txt": "a"})
    assert files.read(UUID, ".txt") == "a"


def test_a_full_disk_leaves_the_report_that_was_there(
    files: ReportFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(UUID, {".txt": "before"})
    folder = files.directory / "full"
    folder.mkdir()
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(Path, "open", lambda *_: os.fdopen(os.dup(full), "wb"))
    with pytest.raises(StoreUnavailable, match="No space left"):
        files.write(UUID, {".txt": "after"})
    monkeypatch.undo()
    os.close(full)
    assert files.read(UUID, ".txt") == "before"
    files.write(UUID, {".txt": "after"})
    assert files.read(UUID, ".txt") == "after"


def test_a_directory_that_somebody_removed_is_made_anew(files: ReportFiles) -> None:
    files.write(UUID, {".txt": "a"})
    subprocess.run(["rm", "-rf", str(files.directory)], check=True)
    with pytest.raises(StoreUnavailable):
        files.write(UUID, {".txt": "b"})
    files.write(UUID, {".txt": "b"})
    assert files.read(UUID, ".txt") == "b"
