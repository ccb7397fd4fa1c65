"""The README's listener is run as it stands there."""

import re
from pathlib import Path
from typing import Any

from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from tests.waiting import eventually

README = Path(__file__).parents[2] / "README.md"


def test_the_listener_of_the_readme_greets(kafka: Connection) -> None:
    declare, run = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {"connection": kafka}
    exec(declare, names)
    create_topics(kafka, [names["GREETING"]])
    said: list[str] = []
    names["print"] = said.append
    exec(run, names)
    assert eventually(lambda: said) == ["Hello, Ana!"]
    assert names["container"].stop(timeout=60)
