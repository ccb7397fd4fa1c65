import pytest

from shop.events import LocalDateTime


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([2026, 11, 22, 12, 33], "2026-11-22T12:33:00"),
        ([2026, 11, 22, 12, 33, 42], "2026-11-22T12:33:42"),
        ([2026, 11, 22, 12, 33, 42, 666228733], "2026-11-22T12:33:42.666228733"),
        ([2026, 11, 22, 12, 33, 42, 1000], "2026-11-22T12:33:42.000001000"),
        ("2026-11-22T12:33:42.666228733", "2026-11-22T12:33:42.666228733"),
        ("2026-11-22T12:33", "2026-11-22T12:33"),
    ],
)
def test_a_local_date_and_time_comes_as_text_or_as_numbers(value: object, text: str) -> None:
    assert LocalDateTime.from_wire(value) == text


@pytest.mark.parametrize(
    "value",
    [
        [2026, 13, 22, 12, 33],
        [99_999_999_999, 1, 1, 0, 0],
        [2026, 11, 22, 12, 33, 42, 1_000_000_000],
        [2026, 11, 22, 12],
        [2026, 11, 22, 12, 33.5],
        "2026-11-22T12:33:42Z",
        "2026-02-30T12:33:42",
        "2026-11-22",
        1_795_000_000_000,
        None,
    ],
)
def test_what_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        LocalDateTime.from_wire(value)
