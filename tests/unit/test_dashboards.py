"""The Grafana dashboard and the alert rules ask for series that the shop's processes show."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.go_programs import PROMTOOL
from tests.metric_names import ALL

OTEL = Path(__file__).parents[2] / "otel"
DASHBOARD: dict[str, Any] = json.loads((OTEL / "grafana/shop.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [
    rule
    for group in yaml.safe_load((OTEL / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
VARIABLE = DASHBOARD["templating"]["list"][0]

HISTOGRAMS = {
    "shop_listener_duration_seconds",
    "shop_listener_age_seconds",
    "shop_database_wait_seconds",
    "http_server_request_duration_seconds",
}
OF_ANY_PROCESS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}
SERIES = (
    ALL - HISTOGRAMS
    | {name + part for name in HISTOGRAMS for part in ("_bucket", "_sum", "_count")}
    | {"up", *OF_ANY_PROCESS}
)
LABELS = {
    *("job", "instance", "le"),
    *("group", "topic", "partition", "outcome", "database"),
    *("http_request_method", "http_route", "http_response_status_code"),
}
WORDS = {"and", "or", "unless", "bool", "by", "without"}


def queries() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"]
    yield "variable group", re.sub(r"label_values\((.*), .*\)", r"\1", VARIABLE["definition"])


@pytest.mark.parametrize(("place", "query"), list(queries()))
def test_a_query_asks_for_series_and_labels_that_there_are(place: str, query: str) -> None:
    plain = re.sub(r'"[^"]*"', '""', query)
    labels = [name for inside in re.findall(r"\{(.*?)\}", plain) for name in _names(inside)]
    labels += [
        name for by in re.findall(r"\b(?:by|without) \((.*?)\)", plain) for name in _names(by)
    ]
    bare = re.sub(r"\{.*?\}|\[.*?\]|\b(?:by|without) \(.*?\)", "", plain)
    series = {name for name in _names(bare) if not re.search(rf"\b{name}\s*\(", bare)} - WORDS

    assert series, place
    assert series <= SERIES, f"{place}: no process shows {series - SERIES}"
    assert set(labels) <= LABELS, f"{place}: no series has {set(labels) - LABELS}"


def _names(text: str) -> list[str]:
    return re.findall(r"(?<![\w$.])[a-zA-Z_]\w*", text)


def test_every_series_of_the_shop_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])

    assert {name for name in ALL if name not in shown} == set()


def test_the_panels_have_their_own_places_and_the_datasource_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((OTEL / "grafana/datasources.yml").read_text())["datasources"]
    uids = {source["uid"] for source in provisioned}
    taken: set[tuple[int, int]] = set()

    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    used = [*PANELS, VARIABLE, *(target for panel in PANELS for target in panel["targets"])]
    assert {user["datasource"]["uid"] for user in used} <= uids


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["action"]) > 40
    used = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert set(used) <= LABELS


@pytest.mark.parametrize(
    "check",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(check: list[str]) -> None:
    promtool(*check)


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As recording rules, since promtool checks those; Grafana's variables are put in first."""
    rules = [
        {"record": f"query:{n}", "expr": expr.replace("$__rate_interval", "1m")}
        for n, expr in enumerate(t["expr"] for panel in PANELS for t in panel["targets"])
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


def promtool(*command: str) -> None:
    result = subprocess.run([PROMTOOL.path(), *command], cwd=OTEL, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout + result.stderr
