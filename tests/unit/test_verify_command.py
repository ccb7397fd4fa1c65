"""What `shop verify` looks at, and how it shows what it found."""

from pathlib import Path

import pytest

from shop.broker import BrokerError
from shop.broker.storage import Cluster
from shop.cli.output import print_table
from shop.cli.verify import kafka_as_it_was


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_stopped_kafka_is_started_with_the_nodes_that_it_was_made_with(
    tmp_path: Path, nodes: int
) -> None:
    Cluster.open(tmp_path, 19_392, nodes)
    kafka = kafka_as_it_was(tmp_path)
    assert kafka.nodes == nodes
    assert ("19392" in kafka.bootstrap_servers) == (nodes == 3)


def test_of_a_damaged_directory_nothing_is_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("[]")
    with pytest.raises(BrokerError, match="damaged: restore it from a copy") as raised:
        kafka_as_it_was(tmp_path)
    assert "wipe" not in str(raised.value)


def test_each_example_has_a_line_of_its_own_and_steers_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = ["first [bold]", "second\n\x1b[31m"]
    print_table([{"kind": "lost", "for example": examples}], ["kind", "for example"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["kind  for example", "lost  first [bold]", r"      second\n\x1b[31m"]
