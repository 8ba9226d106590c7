import sys
from pathlib import Path

import pytest

from bench.compare.predecessor import (
    REQUIREMENT,
    NoPredecessorError,
    benchmark_cache,
    installing,
    named_predecessor,
    version_of,
)


def program(path: Path, *said: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "\n".join(said) + "\n")
    path.chmod(0o755)
    return path


def test_it_is_installed_into_an_environment_of_its_own(tmp_path: Path) -> None:
    with_uv = installing(tmp_path, "/bin/uv")
    with_pip = installing(tmp_path, None)
    assert [command[0] for command in with_uv] == ["/bin/uv", "/bin/uv"]
    assert [command[0] for command in with_pip] == [sys.executable, f"{tmp_path}/bin/python"]
    for commands in (with_uv, with_pip):
        assert str(tmp_path) in " ".join(commands[0])
        assert commands[1][-1] == REQUIREMENT


def test_the_cache_is_where_the_user_keeps_caches() -> None:
    assert benchmark_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/agent-dispatch-bench")


def test_an_installed_one_is_named_by_its_script_or_its_interpreter(tmp_path: Path) -> None:
    script = program(tmp_path / "env" / "bin" / "agent-dispatch", "echo agent-dispatch 0.16.0")
    link = tmp_path / "agent-dispatch"
    link.symlink_to(script)
    for name in (script, script.with_name("python3"), link):
        assert named_predecessor(str(name)) == script
    assert version_of(script) == "0.16.0"


def test_one_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NoPredecessorError, match=f"no program; name .* {REQUIREMENT}"):
        named_predecessor(str(tmp_path / "agent-dispatch"))


def test_one_that_does_not_run_says_what_it_said(tmp_path: Path) -> None:
    broken = program(tmp_path / "agent-dispatch", "echo no module named x", "exit 1")
    with pytest.raises(NoPredecessorError, match=r"no module named x\n.*--predecessor"):
        version_of(broken)
