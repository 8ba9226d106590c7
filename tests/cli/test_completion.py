"""Completion: the words by themselves, and each script in its own shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent_dispatch.jobs.store import JobStore
from tests.cli.support import World
from tests.jobs.support import ended


@pytest.fixture
def infra(world: World) -> World:
    world.write_config('[agents.infra]\ndirectory = "/"\n[agents.inventory]\ndirectory = "/"\n')
    return world


def words(world: World, *line: str) -> list[str]:
    assert world.run("completion", "words", "--", "\n".join([*line, "."])) == 0
    return world.out.splitlines()


def test_words_are_completed_by_their_place(infra: World) -> None:
    job_id = ended(JobStore(infra.config.parent / "jobs"))
    assert words(infra, "des") == ["describe"]
    assert {"list", "ls", "why"} <= set(words(infra, ""))
    assert words(infra, "run", "inf") == ["infra"]
    assert words(infra, "dialogue", "infra", "") == ["infra", "inventory"]
    assert words(infra, "run", "--goal", "x", "inv") == ["inventory"]
    assert words(infra, "run", "infra", "") == []
    assert words(infra, "wait", "") == [job_id[-8:]]
    assert words(infra, "logs", job_id[-8:-4]) == [job_id[-8:]]
    assert words(infra, "jobs", "--st") == ["--status"]
    assert words(infra, "jobs", "--status", "f") == ["failed"]
    assert words(infra, "stats", "--by", "c") == ["caller"]
    assert words(infra, "jobs", "--agent=inf") == ["--agent=infra"]
    assert words(infra, "jobs", "--agent", "=", "inf") == ["infra"]
    assert words(infra, "jobs", "--status", "=")[0] == "cancelled"
    assert words(infra, "update", "infra", "--effort", "xh") == ["xhigh"]
    assert words(infra, "init", "--client", "cur") == ["cursor"]
    assert words(infra, "group", "ins") == ["inspect"]
    assert words(infra, "completion", "z") == ["zsh"]
    assert words(infra, "help", "exit") == ["exit-codes"]
    assert words(infra, "nonsense", "") == []


def test_groups_are_completed_where_one_is_named(infra: World) -> None:
    with infra.config.open("a") as file:
        file.write('[groups.shop]\nmembers = [{agent = "infra"}]\n')
    assert words(infra, "group", "inspect", "s") == ["shop"]
    assert words(infra, "run", "--group", "") == ["shop"]


def test_a_broken_config_completes_nothing(world: World) -> None:
    world.write_config("[agents\n")
    assert words(world, "run", "") == []


def test_an_unknown_shell_is_refused_with_those_there_are(world: World) -> None:
    assert world.run("completion", "tcsh") == 2
    assert "It takes: bash, zsh, fish." in world.err


PROBES = {
    "bash": """
set -u
unset BASH_COMPLETION_VERSINFO
source "$1"
COMP_WORDS=(agent-dispatch run inv); COMP_CWORD=2
_agent_dispatch
echo "${COMPREPLY[@]}"
COMP_WORDS=(agent-dispatch run ""); COMP_CWORD=2
_agent_dispatch
echo "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { :; }
compadd() { shift; print -r -- "$@"; }
source "$1"
words=(agent-dispatch run inv); CURRENT=3
_agent_dispatch
words=(agent-dispatch run ""); CURRENT=3
_agent_dispatch
""",
    "fish": """
source $argv[1]
string join ' ' (complete -C 'agent-dispatch run inv')
string join ' ' (complete -C 'agent-dispatch run ')
""",
}


@pytest.mark.parametrize("name", PROBES)
def test_a_script_completes_in_its_shell(infra: World, tmp_path: Path, name: str) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    infra.run("completion", name)
    script, probe = tmp_path / "script", tmp_path / "probe"
    script.write_text(infra.out)
    probe.write_text(PROBES[name])
    programs = tmp_path / "programs"
    programs.mkdir()
    ours = programs / "agent-dispatch"
    ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent_dispatch "$@"\n')
    ours.chmod(0o755)
    done = subprocess.run(
        [program, str(probe), str(script)],
        env=infra.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["inventory", "infra inventory"], done.stderr
