import subprocess
import sys
import textwrap


def python(code: str) -> str:
    """What a new interpreter prints, on both streams."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return result.stdout


def test_the_clients_come_without_the_rest_of_quix_and_without_a_word() -> None:
    out = python(
        """
        import sys
        import shop.kafka.container
        print([name for name in ("quixstreams", "rocksdict", "authlib") if name in sys.modules])
        """
    )
    assert out == "[]\n"


def test_who_imports_quixstreams_afterwards_gets_the_real_one_with_the_same_clients() -> None:
    out = python(
        """
        import shop.kafka.quix
        from quixstreams import Application
        from quixstreams.kafka import Consumer, Producer
        from quixstreams.models import Topic
        assert Consumer is shop.kafka.quix.Consumer and Producer is shop.kafka.quix.Producer
        print(Application.__name__, Topic.__name__)
        """
    )
    assert out.splitlines()[-1] == "Application Topic"
