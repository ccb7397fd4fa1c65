"""Metrics as Prometheus reads them."""

from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text


@dataclass(frozen=True)
class Scrape:
    """The samples of one reading, each a name, its labels and a value."""

    samples: list[tuple[str, dict[str, str], float]]

    @property
    def names(self) -> set[str]:
        """Of histograms without what Prometheus adds."""
        names = {name for name, _, _ in self.samples}
        return {n.removesuffix("_count") for n in names if not n.endswith(("_bucket", "_sum"))}

    def one(self, name: str, **labels: str) -> float | None:
        """The value of the sample with these labels, among others; None where there is none."""
        found = [
            value
            for sample, has, value in self.samples
            if sample == name and labels.items() <= has.items()
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    def labels(self, name: str) -> set[str]:
        return {label for sample, has, _ in self.samples if sample == name for label in has}

    def __len__(self) -> int:
        return len(self.samples)


def parsed(body: bytes, media_type: str) -> Scrape:
    """By Prometheus's own parsers, which raise ValueError for what they cannot read."""
    parse: Any = openmetrics if media_type.startswith("application/openmetrics-text") else text
    families = parse(body.decode())
    return Scrape([(s.name, s.labels, s.value) for family in families for s in family.samples])


def scraped(url: str, **headers: str) -> Scrape:
    answer = httpx.get(url, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return parsed(answer.content, answer.headers["content-type"])
