import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shop.broker import free_port
from shop.cli.errors import CommandFailed, report
from shop.cli.processes import chosen_groups

SHOP = [sys.executable, "-P", "-m", "shop.cli"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOP_", "OTEL_"))}
    return inherited | {
        "SHOP_DATA_DIR": str(tmp_path / "data"),
        "SHOP_HTTP__PORT": str(free_port()),
        "SHOP_BROKER__PORT": str(free_port()),
    }


def shop(
    *arguments: str, environment: dict[str, str], **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHOP, *arguments],
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def one_line(text: str) -> str:
    assert text.startswith("shop: "), text
    assert text.count("\n") == 1, text
    return text.removeprefix("shop: ").strip()


def one_error(text: str) -> str:
    """In the log of a process."""
    assert text.count("\n") == 1, text
    line = json.loads(text)
    assert (line["level"], line["logger"]) == ("error", "shop")
    return str(line["event"])


def test_help_lists_the_commands_in_order(environment: dict[str, str]) -> None:
    result = shop("--help", environment=environment)

    names = [
        *("demo", "up"),
        *("serve", "listen", "stream"),
        *("settings", "orders", "users", "reports", "pix"),
        *("topics", "groups", "broker"),
    ]
    places = [result.stdout.index(f"│ {name} ") for name in names]
    assert places == sorted(places)
    assert result.returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "demo", "up", "serve", "listen", "stream", "settings",
        "orders", "orders new", "orders show", "orders timeline", "users", "users list",
        "reports", "reports generate", "reports show", "pix", "pix send", "pix show", "pix keys",
        "topics", "topics create", "topics list", "topics describe", "topics tail", "topics send",
        "groups", "groups list", "groups describe", "groups hand-over",
        "broker", "broker start", "broker stop", "broker status", "broker wipe",
    ],
)  # fmt: skip
def test_every_command_has_help(command: str) -> None:
    from typer.testing import CliRunner

    from shop.cli import app

    result = CliRunner().invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_version_is_shown(environment: dict[str, str]) -> None:
    assert shop("--version", environment=environment).stdout.startswith("shop ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["settings"],
        ["orders", "new"],
        ["orders", "show", "an-id"],
        ["users", "list"],
        ["reports", "generate"],
        ["pix", "send", "--from", "ana", "--to", "bia", "--amount", "1"],
        ["broker", "status"],
    ],
    ids=" ".join,
)
def test_a_light_command_imports_nothing_heavy(
    arguments: list[str], environment: dict[str, str]
) -> None:
    heavy = ("quixstreams", "confluent_kafka", "sqlalchemy", "litestar", "jgo", "opentelemetry")
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('IMPORTED', {heavy!r} & sys.modules.keys()))\n"
        f"sys.argv = ['shop', *{arguments!r}]\n"
        "from shop.cli import main\nmain()"
    ).replace(repr(heavy), f"set({heavy!r})")
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )

    assert "IMPORTED set()" in result.stdout


def test_an_unknown_setting_is_named_in_one_line(environment: dict[str, str]) -> None:
    result = shop("settings", environment=environment, SHOP_HTPP__PORT="1")

    assert "SHOP_HTPP__PORT" in one_line(result.stderr)
    assert result.returncode == 2


@pytest.mark.parametrize("command", ["up", "demo", "serve", "settings", "orders new"])
def test_a_wrong_setting_is_named_in_one_line(command: str, environment: dict[str, str]) -> None:
    result = shop(*command.split(), environment=environment, SHOP_HTTP__PORT="many")

    assert "SHOP_HTTP__PORT" in one_line(result.stderr)
    assert result.returncode == 2


def test_a_settings_file_is_read_and_the_environment_wins(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("[fraud]\nlimit = 100\n[http]\nport = 1\n")

    result = shop("--settings", str(file), "settings", environment=environment)

    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["SHOP_FRAUD__LIMIT", "100", "4500"] in lines
    assert ["SHOP_HTTP__PORT", environment["SHOP_HTTP__PORT"], "8080"] in lines


def test_a_missing_settings_file_is_one_line(environment: dict[str, str]) -> None:
    result = shop("--settings", "nowhere.toml", "settings", environment=environment)

    assert "nowhere.toml" in one_line(result.stderr)
    assert result.returncode == 2


def test_settings_never_show_a_secret(environment: dict[str, str]) -> None:
    for arguments in (["settings"], ["settings", "--json"]):
        result = shop(*arguments, environment=environment, SHOP_ADMIN_TOKEN="hush-hush")
        assert "SHOP_ADMIN_TOKEN" in result.stdout
        assert "hush" not in result.stdout


def test_an_unknown_group_is_answered_with_those_there_are(environment: dict[str, str]) -> None:
    result = shop("listen", "--group", "fruad", environment=environment)

    line = one_error(result.stderr)
    assert "fruad" in line
    assert "fraud, email-new-order, email" in line
    assert result.returncode == 2


def test_an_unreachable_broker_is_one_line(environment: dict[str, str]) -> None:
    commands = [
        "listen --all",
        "listen --group fraud",
        "stream",
        "topics list",
        "topics tail any",
        "topics send any text",
        "groups hand-over fraud users",
    ]
    running = [
        subprocess.Popen([*SHOP, *command.split()], env=environment, stderr=subprocess.PIPE)
        for command in commands
    ]
    results = [process.communicate(timeout=60)[1].decode() for process in running]

    told = [*map(one_error, results[:3]), *map(one_line, results[3:])]
    assert all(environment["SHOP_BROKER__PORT"] in line for line in told)
    assert [process.returncode for process in running] == [1] * len(commands)
    assert not Path(environment["SHOP_DATA_DIR"]).exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("listen --all --without fruad", "there is no group fruad; there are fraud,"),
        ("up --without fruad", "there is no group fruad; there are fraud,"),
    ],
)
def test_an_unknown_group_cannot_be_left_out(
    arguments: str, reason: str, environment: dict[str, str]
) -> None:
    result = shop(*arguments.split(), environment=environment)

    assert reason in (one_error if "listen" in arguments else one_line)(result.stderr)
    assert result.returncode == 2


def test_leaving_out_all_groups_leaves_nothing_to_run() -> None:
    known = ["fraud", "users", "orders"]

    assert chosen_groups(known) == known
    assert chosen_groups(known, without=["users", "users"]) == ["fraud", "orders"]
    with pytest.raises(CommandFailed, match="nothing to run"):
        chosen_groups(known, without=known)


@pytest.mark.parametrize("command", ["orders new", "orders show an-id"])
def test_an_api_that_does_not_answer_is_one_line(command: str, environment: dict[str, str]) -> None:
    result = shop(*command.split(), environment=environment)

    assert environment["SHOP_HTTP__PORT"] in one_line(result.stderr)
    assert result.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["listen"],
        ["listen", "--all", "--group", "fraud"],
        ["orders", "new", "--count", "0"],
        ["orders", "new", "--amount", "ten"],
        ["orders", "show"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2(arguments: list[str], environment: dict[str, str]) -> None:
    assert shop(*arguments, environment=environment).returncode == 2


def test_an_unforeseen_error_is_one_line_and_a_traceback_only_when_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(ZeroDivisionError("a\nb")) == 70
    assert one_line(capsys.readouterr().err).startswith("unexpected ZeroDivisionError: a b;")

    assert report(ZeroDivisionError("a"), debug=True) == 70
    assert "ZeroDivisionError: a\nshop: unexpected" in capsys.readouterr().err


def test_wiping_the_broker_asks_first(environment: dict[str, str], tmp_path: Path) -> None:
    result = shop("broker", "wipe", environment=environment)

    assert "Delete all topics" in result.stdout
    assert result.returncode == 1
    assert shop("broker", "wipe", "--yes", environment=environment).returncode == 0


def test_a_damaged_broker_directory_can_still_be_wiped(
    environment: dict[str, str], tmp_path: Path
) -> None:
    kafka = tmp_path / "data" / "kafka"
    kafka.mkdir(parents=True)
    (kafka / "cluster.json").write_text("[]")

    assert "damaged" in one_line(shop("broker", "status", environment=environment).stderr)
    assert shop("broker", "wipe", "--yes", environment=environment).returncode == 0
    assert not kafka.exists()


def test_an_api_open_to_others_needs_a_token(environment: dict[str, str]) -> None:
    result = shop("serve", environment=environment, SHOP_HTTP__HOST="0.0.0.0")

    assert "set SHOP_ADMIN_TOKEN" in one_line(result.stderr)
    assert result.returncode == 2
