import fcntl
import os
import pwd
import shlex
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.file import ConfigFile
from agent_dispatch.config.paths import config_path, jobs_path, with_absolute_paths
from agent_dispatch.errors import ConfigError
from agent_dispatch.model.config import Config

LATER_NS = 10**18 * 4


def _add(name: str) -> Callable[[Draft], None]:
    return lambda draft: draft.add_table(("agents", name), {"directory": f"/srv/{name}"})


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.toml"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AGENT_DISPATCH_CONFIG": "/x/my.toml", "HOME": "/h"}, "/x/my.toml"),
        ({"AGENT_DISPATCH_CONFIG": "~/my.toml", "HOME": "/h"}, "/h/my.toml"),
        ({"AGENT_DISPATCH_CONFIG": "", "HOME": "/h"}, "/h/.config/agent-dispatch/agents.toml"),
        ({"XDG_CONFIG_HOME": "/xdg", "HOME": "/h"}, "/xdg/agent-dispatch/agents.toml"),
        ({"XDG_CONFIG_HOME": "rel", "HOME": "/h"}, "/h/.config/agent-dispatch/agents.toml"),
        ({"HOME": "/h"}, "/h/.config/agent-dispatch/agents.toml"),
    ],
)
def test_the_environment_says_where_the_file_is(environ: dict[str, str], expected: str) -> None:
    assert config_path(environ) == Path(expected)


def test_a_relative_path_is_made_absolute_before_anyone_changes_directory() -> None:
    assert config_path({"AGENT_DISPATCH_CONFIG": "a.toml"}) == Path.cwd() / "a.toml"


def test_an_empty_home_is_that_of_the_account_not_the_root_directory() -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    for environ in ({}, {"HOME": ""}):
        assert config_path(environ) == Path(home) / ".config/agent-dispatch/agents.toml"


@pytest.mark.parametrize(
    ("name", "value", "handed_on"),
    [
        ("AGENT_DISPATCH_CONFIG", "conf/a.toml", "HERE/conf/a.toml"),
        ("AGENT_DISPATCH_CONFIG", "./a.toml", "HERE/a.toml"),
        ("AGENT_DISPATCH_CONFIG", "../a.toml", "HERE/../a.toml"),
        ("AGENT_DISPATCH_CONFIG", "~/a.toml", "/h/a.toml"),
        ("AGENT_DISPATCH_CONFIG", "/x/a.toml", "/x/a.toml"),
        ("AGENT_DISPATCH_CONFIG", "", ""),
        ("AGENT_DISPATCH_JOBS_DIR", "jobs", "HERE/jobs"),
        ("AGENT_DISPATCH_JOBS_DIR", "~", "/h"),
        ("CLAUDE_CONFIG_DIR", ".claude-work", "HERE/.claude-work"),
        ("CLAUDE_CONFIG_DIR", "~/x", "HERE/~/x"),
        ("CLAUDE_CONFIG_DIR", "/c", "/c"),
        ("XDG_CONFIG_HOME", "rel", "rel"),
    ],
)
def test_workers_and_agents_get_paths_that_mean_the_same_everywhere(
    name: str, value: str, handed_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": "/h", "PATH": "bin:/bin", name: value}
    expected = environ | {name: handed_on.replace("HERE", str(tmp_path))}
    assert with_absolute_paths(environ) == expected
    assert with_absolute_paths(expected) == expected


def test_a_relative_path_from_a_removed_directory_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="Change to a directory that exists"):
        config_path({"AGENT_DISPATCH_CONFIG": "a.toml"})
    assert with_absolute_paths({"AGENT_DISPATCH_CONFIG": "/a.toml"})


@pytest.mark.parametrize("name", ["agents.yaml", "agents.yml", "my agents.YAML"])
def test_a_yaml_file_is_refused_with_the_command_that_takes_it_over(name: str) -> None:
    with pytest.raises(ConfigError, match="names a YAML file") as caught:
        config_path({"AGENT_DISPATCH_CONFIG": f"/x/{name}"})
    (step,) = caught.value.next_steps
    assert step.command == f"agent-dispatch import {shlex.quote(f'/x/{name}')}"


def test_without_an_absolute_home_the_variable_to_set_is_named() -> None:
    with pytest.raises(ConfigError, match="Set HOME, or AGENT_DISPATCH_CONFIG"):
        config_path({"HOME": "relative"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/c/jobs"),
        ({"AGENT_DISPATCH_JOBS_DIR": "/j"}, "/j"),
        ({"AGENT_DISPATCH_JOBS_DIR": "~/j", "HOME": "/h"}, "/h/j"),
    ],
)
def test_the_jobs_are_beside_the_file_unless_the_environment_names_a_directory(
    environ: dict[str, str], expected: str
) -> None:
    assert jobs_path(environ, Path("/c/agents.toml")) == Path(expected)


def test_a_missing_file_is_an_empty_configuration(path: Path) -> None:
    assert ConfigFile(path).load() == Config()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_has_not_changed_is_parsed_once(path: Path) -> None:
    path.write_text("[agents.a]\ndirectory = '/a'\n")
    file = ConfigFile(path, now_ns=lambda: LATER_NS)
    assert file.load() is file.load()


def test_a_file_too_young_to_tell_changes_apart_is_parsed_again(path: Path) -> None:
    path.write_text("[agents.a]\ndirectory = '/a'\n")
    file = ConfigFile(path, now_ns=lambda: path.stat().st_mtime_ns)
    assert file.load() is not file.load()


def test_a_changed_file_is_seen_at_the_next_call(path: Path) -> None:
    file = ConfigFile(path, now_ns=lambda: LATER_NS)
    for name in ("a", "bb"):
        path.write_text(f"[agents.{name}]\ndirectory = '/x'\n")
        assert list(file.load().agents) == [name]
    path.unlink()
    assert file.load() == Config()


def test_a_file_that_does_not_parse_is_an_error_until_it_is_corrected(path: Path) -> None:
    path.write_text("[agents.a]\ndirectory = \n")
    file = ConfigFile(path, now_ns=lambda: LATER_NS)
    for _ in range(2):
        with pytest.raises(ConfigError, match="line 2, column 13"):
            file.load()
    path.write_text("[agents.a]\ndirectory = '/a'\n")
    assert list(file.load().agents) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[agents.a]\nx = 1\n[agents.a]\n", r"not valid TOML: .*\(at line 3, column 10\)"),
        (b"a = [", "not valid TOML: .*at end of document"),
        (b"a = " + b"[" * 9999, "nested too deeply"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"x = 1\ny = 'caf\xe9'\n", "not UTF-8: byte 0xe9 at line 2, column 9"),
        ("[agents]".encode("utf-16"), "not UTF-8: byte 0xff at line 1, column 1"),
        (b"a = 1\rb = 2", "not valid TOML"),
        (b"agents = 5", r"agents: expected a table of agents, got the number 5\. Write each agent"),
        (b"\0" * 10, "not valid TOML"),
        (b"# " + b"x" * (5 * 1024 * 1024), "larger than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_and_never_overwritten(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    file = ConfigFile(path)
    with pytest.raises(ConfigError, match=message):
        file.load()
    with pytest.raises(ConfigError, match=message):
        file.edit(_add("b"))
    assert path.read_bytes() == content


def _make_fifo(path: Path) -> None:
    os.mkfifo(path)


def _make_loop(path: Path) -> None:
    path.symlink_to(path)


def _make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "Is a directory. Move that directory away"),
        (_make_fifo, "not a regular file"),
        (_make_loop, "symbolic links lead in a circle"),
        (_make_link_to_a_device, "not a regular file"),
    ],
)
def test_a_path_that_is_not_a_regular_file_is_an_error_at_once(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    with pytest.raises(ConfigError, match=message):
        ConfigFile(path).load()
    with pytest.raises(ConfigError):
        ConfigFile(path).edit(_add("a"))


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = ConfigFile(tmp_path / "file" / "agents.toml")
    with pytest.raises(ConfigError, match="Something above it is a file"):
        file.load()
    with pytest.raises(ConfigError, match="cannot be changed: Not a directory"):
        file.edit(_add("a"))


def _error_of(work: Callable[[], object]) -> str:
    try:
        work()
    except ConfigError as error:
        return str(error)
    return "no error"


def test_a_file_without_permission_to_read_is_an_error(
    path: Path, as_nobody: Callable[[Callable[[], str]], str]
) -> None:
    path.write_text("[agents.a]\ndirectory = '/a'\n")
    path.chmod(0)
    said = as_nobody(lambda: _error_of(ConfigFile(path).load))
    assert f"cannot be read: Permission denied. Make it readable for you: chmod u+rw {path}" in said


@pytest.mark.parametrize(
    ("mode", "directory_mode", "reason"),
    [(0o644, 0o555, "Permission denied"), (0o444, 0o777, "it is write-protected")],
)
def test_a_file_without_permission_to_write_stays_as_it_is(
    path: Path,
    as_nobody: Callable[[Callable[[], str]], str],
    mode: int,
    directory_mode: int,
    reason: str,
) -> None:
    path.write_text("")
    path.chmod(mode)
    path.parent.chmod(directory_mode)
    error = as_nobody(lambda: _error_of(lambda: ConfigFile(path).edit(_add("a"))))
    assert f"cannot be changed: {reason}" in error
    assert path.read_text() == ""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_files_and_directories_are_for_their_owner_only_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "new" / "deep" / "agents.toml"
    before = os.umask(umask)
    try:
        for name in ("a", "b"):
            ConfigFile(path).edit(_add(name))
    finally:
        os.umask(before)
    assert _mode(path) == _mode(path.with_name("agents.toml.lock")) == 0o600
    assert _mode(path.parent) == _mode(path.parent.parent) == 0o700
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "agents.toml",
        "agents.toml.lock",
    ]


def test_an_open_file_becomes_private_with_the_first_edit(path: Path) -> None:
    path.write_text("# mine\n")
    path.chmod(0o644)
    ConfigFile(path).edit(_add("a"))
    assert _mode(path) == 0o600
    assert path.read_text() == '# mine\n\n[agents.a]\ndirectory = "/srv/a"\n'


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_one_and_its_target_changes(
    tmp_path: Path, path: Path, exists: bool
) -> None:
    target = tmp_path / "dotfiles" / "agents.toml"
    if exists:
        target.parent.mkdir()
        target.write_text("# kept\n")
    path.symlink_to(target)
    ConfigFile(path).edit(_add("a"))
    assert path.is_symlink()
    assert list(ConfigFile(path).load().agents) == ["a"]
    assert target.read_text().startswith("# kept\n" if exists else "[agents.a]")
    assert not path.with_name("agents.toml.lock").exists()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_stay(path: Path, newline: str, mark: str) -> None:
    path.write_bytes(f"{mark}# top{newline}x = 1".encode())
    ConfigFile(path).edit(_add("a"))
    lines = (f"{mark}# top", "x = 1", "", "[agents.a]", 'directory = "/srv/a"', "")
    assert path.read_bytes() == newline.join(lines).encode()
    assert list(ConfigFile(path).load().agents) == ["a"]


def test_a_first_file_is_written_only_if_none_exists(path: Path) -> None:
    assert ConfigFile(path).create("# template\n")
    assert (path.read_text(), _mode(path)) == ("# template\n", 0o600)
    path.write_text("[broken")
    assert not ConfigFile(path).create("# template\n")
    assert path.read_text() == "[broken"


def test_an_edit_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    path.write_text("[agents.a]\n")
    inode = path.stat().st_ino

    def change(draft: Draft) -> None:
        draft.add_table(("agents", "b"), {})
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        ConfigFile(path).edit(change)
    assert (path.read_text(), path.stat().st_ino) == ("[agents.a]\n", inode)


def test_a_shape_that_cannot_be_changed_in_place_is_refused_by_name(path: Path) -> None:
    path.write_text("agents.a = 5\n")
    with pytest.raises(
        ConfigError, match=r"agents\.toml was not changed: agents\.a is not a table"
    ):
        ConfigFile(path).edit(lambda draft: draft.set_keys(("agents", "a"), {"model": "x"}))


@pytest.mark.parametrize("depth", range(100, 600, 25))
def test_nesting_of_any_depth_is_edited_or_refused(path: Path, depth: int) -> None:
    text = "x = " + "[" * depth + "]" * depth + "\n"
    path.write_text(text)
    said = _error_of(lambda: ConfigFile(path).edit(_add("a")))
    assert said == "no error" or "nested too deeply" in said
    assert (path.read_text() == text) == (said != "no error")


def test_an_edit_that_changes_nothing_writes_nothing(path: Path) -> None:
    path.write_text("# x\n")
    before = path.stat()
    assert ConfigFile(path).edit(lambda draft: len(draft.data)) == 0
    assert path.stat().st_ino == before.st_ino


def test_the_leftovers_of_a_killed_writer_are_removed(path: Path) -> None:
    path.with_name(".agents.toml.tmp").write_text("half of i")
    ConfigFile(path).edit(_add("a"))
    assert list(ConfigFile(path).load().agents) == ["a"]
    assert not path.with_name(".agents.toml.tmp").exists()


def test_a_held_lock_fails_one_edit_and_names_the_holder(path: Path) -> None:
    path.write_text("# x\n")
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", _HOLDER, f"{path}.lock"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.read(1) == b"+"
        file = ConfigFile(path, lock_timeout_s=0.05)
        with pytest.raises(ConfigError) as caught:
            file.edit(_add("a"))
        assert file.load() == Config()
    finally:
        holder.kill()
        holder.communicate()
    assert f"{path} is being changed by" in str(caught.value)
    assert f"{path}.lock for more than 0.05 s. Nothing was changed." in str(caught.value)
    if os.path.exists("/proc/locks"):
        assert f"process {holder.pid} " in str(caught.value)
    assert path.read_text() == "# x\n"
    file.edit(_add("a"))
    assert list(file.load().agents) == ["a"]


_HOLDER = """
import fcntl, signal, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
sys.stdout.write("+")
sys.stdout.flush()
signal.pause()
"""


def test_a_waiting_edit_goes_on_as_soon_as_the_lock_is_free(path: Path) -> None:
    with open(f"{path}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: ConfigFile(path).edit(_add("a")))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.join(5)
    assert list(ConfigFile(path).load().agents) == ["a"]


@pytest.mark.parametrize("make", [Path.mkdir, _make_fifo, _make_link_to_a_device])
def test_a_lock_that_is_not_a_file_is_refused(path: Path, make: Callable[[Path], None]) -> None:
    make(path.with_name("agents.toml.lock"))
    with pytest.raises(ConfigError, match=r"cannot be changed: .*agents\.toml\.lock"):
        ConfigFile(path).edit(_add("a"))


_WRITER = """
import sys
from pathlib import Path
from agent_dispatch.config.file import ConfigFile
path, worker = Path(sys.argv[1]), sys.argv[2]
file = ConfigFile(path, lock_timeout_s=60)
sys.stdout.write("+")
sys.stdout.flush()
sys.stdin.read()
for number in range(5):
    name = f"w{worker}-{number}"
    file.edit(lambda draft: draft.add_table(("agents", name), {"directory": f"/srv/{name}"}))
    file.edit(lambda draft: draft.set_keys(("agents", name), {"timeout": number + 1}))
file.edit(lambda draft: draft.remove_table(("agents", f"w{worker}-0")))
"""


def test_the_edits_of_ten_processes_at_once_all_land(path: Path) -> None:
    path.write_text("# kept\n[agents.mine]\ndirectory = '/srv/mine' # kept too\n")
    reader, starter = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(worker)],
            stdin=reader,
            stdout=subprocess.PIPE,
        )
        for worker in range(10)
    ]
    os.close(reader)
    assert [writer.stdout and writer.stdout.read(1) for writer in writers] == [b"+"] * 10
    # The end of their common input starts all of them.
    os.close(starter)
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0] * 10
    config = ConfigFile(path).load()
    expected = {f"w{worker}-{number}": number + 1 for worker in range(10) for number in range(1, 5)}
    assert {
        name: agent.timeout for name, agent in config.agents.items() if name != "mine"
    } == expected
    assert path.read_text().startswith(
        "# kept\n[agents.mine]\ndirectory = '/srv/mine' # kept too\n"
    )


_ENDLESS_WRITER = """
import sys
from pathlib import Path
from agent_dispatch.config.file import ConfigFile
file = ConfigFile(Path(sys.argv[1]))
for number in range(1, 10_000):
    sys.stdout.write(".")
    sys.stdout.flush()
    file.edit(lambda draft: draft.set_keys(("agents", "a"), {"timeout": number}))
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file_and_no_lock(path: Path) -> None:
    path.write_text("# start\n")
    for steps in range(1, 9):
        command = [sys.executable, "-c", _ENDLESS_WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as writer:
            assert writer.stdout is not None
            for _ in range(steps):
                assert writer.stdout.read(1) == b"."
            writer.kill()
        ConfigFile(path, lock_timeout_s=1).edit(_add(f"after-{steps}"))
    text = path.read_text()
    assert text.startswith("# start\n")
    assert {f"after-{steps}" for steps in range(1, 9)} <= set(tomllib.loads(text)["agents"])
