import json
import os
import time
from pathlib import Path

import pytest

from agent_dispatch.cli.setup.claude_cli import ClaudeConfigError, ask_claude, read_claude_config
from agent_dispatch.config.project.claude_settings import claude_config_path

ENVIRON = {"PATH": "/usr/bin:/bin"}


def script(place: Path, text: str) -> str:
    path = place / "claude"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_runs_with_an_empty_stdin_away_from_any_project(tmp_path: Path) -> None:
    claude = script(tmp_path, 'cat; pwd; echo "$1,$2"; echo trouble >&2; exit 3')
    answer = ask_claude(claude, ["a", "-b c"], ENVIRON, timeout_s=10)
    assert (answer.exit_status, answer.stdout, answer.stderr) == (3, "/\na,-b c\n", "trouble\n")
    assert answer.complaint() == "trouble"


def test_one_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "held-by-the-child"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as held:
        claude = script(tmp_path, f"sleep 60 > {fifo} & sleep 60")
        answer = ask_claude(claude, ["auth", "status"], ENVIRON, timeout_s=0.5)
        os.set_blocking(held.fileno(), True)
        assert held.read() == b""
    assert answer.exit_status is None
    assert answer.complaint() == f"{claude} auth status did not end within 0.5 s"


def test_what_outlives_it_with_its_stdout_does_not_hold_the_answer_up(tmp_path: Path) -> None:
    claude = script(tmp_path, "sleep 8 & echo answer")
    started = time.monotonic()
    answer = ask_claude(claude, [], ENVIRON, timeout_s=15)
    assert time.monotonic() - started < 5
    assert (answer.exit_status, answer.stdout) == (0, "answer\n")


def test_endless_output_is_neither_kept_nor_waited_for(tmp_path: Path) -> None:
    answer = ask_claude(script(tmp_path, "yes"), [], ENVIRON, timeout_s=0.5)
    assert answer.exit_status is None


def test_a_lot_of_output_is_cut(tmp_path: Path) -> None:
    claude = script(tmp_path, "head -c 1000000 /dev/zero; echo end >&2")
    answer = ask_claude(claude, [], ENVIRON, timeout_s=10)
    assert (answer.exit_status, len(answer.stdout), answer.stderr) == (0, 65536, "end\n")


def test_output_that_is_no_text_is_shown_as_well_as_it_can_be(tmp_path: Path) -> None:
    answer = ask_claude(script(tmp_path, r"printf 'a\377b'"), [], ENVIRON, timeout_s=10)
    assert answer.stdout == "a\ufffdb"


@pytest.mark.parametrize("name", ["missing", "directory"])
def test_one_that_cannot_be_started_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    answer = ask_claude(str(tmp_path / name), [], ENVIRON, timeout_s=10)
    assert answer.exit_status is None
    assert "cannot be run" in answer.complaint()


def test_silence_is_told_too(tmp_path: Path) -> None:
    answer = ask_claude(script(tmp_path, "exit 7"), [], ENVIRON, timeout_s=10)
    assert answer.complaint() == "it ended with status 7 and printed nothing"


def test_the_configuration_is_where_claude_code_has_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert claude_config_path(environ) == tmp_path / ".claude.json"
    assert read_claude_config(environ) == {}
    elsewhere = environ | {"CLAUDE_CONFIG_DIR": str(tmp_path / "x")}
    assert claude_config_path(elsewhere) == tmp_path / "x" / ".claude.json"
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / ".config.json").write_text(json.dumps({"a": 1}))
    assert read_claude_config(environ) == {"a": 1}


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".claude.json").mkdir()
    with pytest.raises(ClaudeConfigError, match="cannot be read"):
        read_claude_config({"HOME": str(tmp_path)})
