"""Look at the Git work tree of an agent before and after a run, to find what the run changed.

Git runs under a guard, so a Git that hangs leaves nothing behind. It must not run anything that the
repository names, because an agent may have written that: no hooks, no file system monitor, no
filters, no network. It writes nothing and takes no locks.
"""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice

import msgspec
import trio

from agent_dispatch.claude.child import ChildStartError
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.program import run_program
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.core.outcome.report import TreeChanges
from agent_dispatch.core.outcome.work_tree import (
    MAX_COMMITS,
    Look,
    changes,
    is_oid,
    new_untracked,
    parse_commits,
    parse_status,
)
from agent_dispatch.threads import DirectoryThreads

LOOK_S = 2.0
"""How long one look may take. Without it the run has no evidence from Git."""
_ALONE_S = 0.5
"""How long the start of the agent waits for the first look; later they overlap."""
_MAX_OUTPUT_BYTES = 4 * 1024 * 1024
_MAX_SETTINGS = 1000
_MAX_FINGERPRINTS = 2000
_MAX_FINGERPRINT_BYTES = 4 * 1024 * 1024
"""Larger files are compared by size and time."""

_STATUS = (
    "git --no-optional-locks status --porcelain=v2 --branch --no-ahead-behind -z"
    " --untracked-files=all --ignore-submodules=dirty --find-renames"
)
# A filter is a program that the repository names; with an empty one Git reads the file as it is.
_NO_FILTERS = r"""
set -f
IFS='
'
for key in $(git config --name-only --get-regexp '^filter\..*\.(clean|process|required)$'); do
  export "GIT_CONFIG_KEY_$GIT_CONFIG_COUNT=$key" "GIT_CONFIG_VALUE_$GIT_CONFIG_COUNT="
  GIT_CONFIG_COUNT=$((GIT_CONFIG_COUNT + 1))
done
export GIT_CONFIG_COUNT
"""
_BEFORE = f"""{_NO_FILTERS}
{_STATUS} || exit 3
printf '\\0'
git for-each-ref --format='%(objectname)'
"""
# Other agents may work in other work trees of the repository; the branches there are theirs.
_BRANCHES = "%(if)%(worktreepath)%(then)HEAD%(else)%(objectname)%(end)"
_AFTER = f"""{_NO_FILTERS}
{_STATUS} || exit 3
printf '\\0'
ids=$({{ cat; git for-each-ref --format='{_BRANCHES}' refs/heads; }} |
  git rev-list --reverse --date-order --ignore-missing --max-count={MAX_COMMITS} --stdin HEAD)
printf '%s\\n\\0' "$ids"
[ -z "$ids" ] || printf '%s\\n' "$ids" |
  git diff-tree --stdin -r -M --root --always --name-only --ignore-submodules=dirty -z
"""

_KEPT_VARIABLES = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "LD_LIBRARY_PATH")
_KEPT_GIT_VARIABLES = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
_OVERRIDES = (
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("safe.bareRepository", "explicit"),
)


class _Tree(msgspec.Struct, frozen=True):
    """A work tree, and Git for it."""

    top: str
    prefix: str
    """The agent's directory, relative to `top`."""
    git_env: dict[str, str]


class WorkTrees:
    """Looks at work trees; made once per service."""

    def __init__(self, launcher: Launcher, threads: DirectoryThreads) -> None:
        """Run Git under guards; a look at a directory that hangs keeps only its own threads."""
        self._launcher = launcher
        self._threads = threads

    def watch(self, command: Command, nursery: trio.Nursery) -> "Watch":
        """Start to look at the directory of `command`, which does not run yet, in `nursery`."""
        watch = Watch(self, command)
        nursery.start_soon(watch.look_before)
        return watch

    async def find(self, command: Command) -> _Tree | None:
        """Find the work tree around the directory of a command; None where there is none."""
        find = partial(_find_tree, command.cwd, command.env)
        return await self._threads.run(command.cwd, find)

    async def before(self, tree: _Tree) -> tuple[Look, list[str]] | None:
        """Look at a tree; also return the commits that have a name there."""
        printed = await self._git(tree, _BEFORE)
        if printed is None:
            return None
        status_part, _, refs = printed.partition(b"\0\0")
        status = parse_status(status_part)
        paths = list(status.entries)
        fingerprints = await self._fingerprints(tree, paths, status.head)
        ids = filter(is_oid, refs.decode(errors="replace").split())
        known = dict.fromkeys([*filter(None, [status.head]), *ids])
        return Look(status=status, prints=fingerprints), list(known)

    async def after(self, tree: _Tree, before: Look, known: list[str]) -> TreeChanges | None:
        """Look at a tree again, and return what changed."""
        printed = await self._git(tree, _AFTER, "".join(f"^{oid}\n" for oid in known).encode())
        if printed is None:
            return None
        status_part, _, rest = printed.partition(b"\0\0")
        ids, _, trees = rest.partition(b"\n\0")
        status = parse_status(status_part)
        paths = [*before.status.entries, *new_untracked(before.status, status)]
        fingerprints = await self._fingerprints(tree, paths, status.head)
        look = Look(status=status, prints=fingerprints)
        commits = parse_commits(filter(is_oid, ids.decode(errors="replace").split()), trees)
        return changes(before, look, commits, prefix=tree.prefix)

    async def _fingerprints(
        self, tree: _Tree, paths: list[str], head: str | None
    ) -> Mapping[str, str]:
        if not paths:
            return {}
        algorithm = "sha256" if head is not None and len(head) == 64 else "sha1"
        look = partial(_fingerprints, tree.top, paths, algorithm)
        return await self._threads.run(tree.top, look)

    async def _git(self, tree: _Tree, script: str, stdin: bytes = b"") -> bytes | None:
        """Run a script of Git commands; None if it fails, or prints too much."""
        printed = bytearray()
        too_much = trio.CancelScope()

        def keep(chunk: bytes) -> None:
            printed.extend(chunk[: _MAX_OUTPUT_BYTES - len(printed)])
            if len(printed) >= _MAX_OUTPUT_BYTES:
                too_much.cancel()

        command = Command(("/bin/sh", "-c", script), tree.top, tree.git_env)
        exit_code = None
        with too_much:
            try:
                exit_code = await run_program(self._launcher, command, on_output=keep, stdin=stdin)
            except ChildStartError:
                return None
        return bytes(printed) if exit_code == 0 and not too_much.cancel_called else None


class Watch:
    """One work tree during one run."""

    def __init__(self, trees: WorkTrees, command: Command) -> None:
        """Watch the directory of `command`; `look_before` begins."""
        self._trees = trees
        self._command = command
        self._tree: _Tree | None = None
        self._before: tuple[Look, list[str]] | None = None
        self._has_looked = trio.Event()

    async def look_before(self) -> None:
        """Look at the tree, for at most `LOOK_S`."""
        try:
            with trio.move_on_after(LOOK_S):
                self._tree = await self._trees.find(self._command)
                if self._tree is not None:
                    self._before = await self._trees.before(self._tree)
        finally:
            self._has_looked.set()

    async def may_start(self) -> None:
        """Wait a moment before the agent is started; a quick look ends meanwhile."""
        with trio.move_on_after(_ALONE_S):
            await self._has_looked.wait()

    async def may_act(self) -> None:
        """Wait until the agent may get its task: the look has ended, or has taken too long."""
        with trio.move_on_after(LOOK_S):
            await self._has_looked.wait()

    async def changes(self) -> TreeChanges | None:
        """Return what changed, None if that is not known; takes at most `LOOK_S`."""
        if self._tree is not None and self._before is not None:
            with trio.move_on_after(LOOK_S):
                return await self._trees.after(self._tree, *self._before)
        return None


def _find_tree(directory: str, env: Mapping[str, str]) -> _Tree | None:
    """Find the work tree that a directory belongs to, and Git for it; blocks."""
    directory = os.path.realpath(directory)
    top = directory
    while not os.path.lexists(os.path.join(top, ".git")):
        if (above := os.path.dirname(top)) == top:
            return None
        top = above
    # A relative folder of PATH would belong to the agent's project.
    folders = [folder for folder in env.get("PATH", os.defpath).split(":") if os.path.isabs(folder)]
    path = ":".join(folders)
    if shutil.which("git", path=path) is None:
        return None
    return _Tree(top, os.path.relpath(directory, top), _git_env({**env, "PATH": path}, top))


def _git_env(env: Mapping[str, str], top: str) -> dict[str, str]:
    """Return the environment of Git: what it needs, and our settings above all others."""
    kept = {name: env[name] for name in (*_KEPT_VARIABLES, *_KEPT_GIT_VARIABLES) if name in env}
    # The last one of a name counts.
    settings = [*_settings(env), *_OVERRIDES]
    for number, (key, value) in enumerate(settings):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return kept | {
        # Git would fetch objects that are missing in the repository.
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_CONFIG_COUNT": str(len(settings)),
        "GIT_CEILING_DIRECTORIES": os.path.dirname(top),
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_WORK_TREE": top,
        "LC_ALL": "C",
        MARKER_VARIABLE: f"{env[MARKER_VARIABLE]}.{secrets.token_hex(4)}",
    }


def _settings(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the settings that a user gives Git in the environment, such as safe directories."""
    count = env.get("GIT_CONFIG_COUNT", "")
    for number in range(min(int(count), _MAX_SETTINGS) if count.isdecimal() else 0):
        key, value = env.get(f"GIT_CONFIG_KEY_{number}"), env.get(f"GIT_CONFIG_VALUE_{number}")
        if key is not None and value is not None:
            yield key, value


def _fingerprints(top: str, paths: Iterable[str], algorithm: str) -> dict[str, str]:
    """Return a fingerprint of each file; a missing file is left out."""
    fingerprints = {}
    for path in islice(paths, _MAX_FINGERPRINTS):
        try:
            fingerprints[path] = _fingerprint(os.path.join(top, path), algorithm)
        except OSError:
            continue
    return fingerprints


def _fingerprint(path: str, algorithm: str) -> str:
    about = os.lstat(path)
    if stat.S_ISLNK(about.st_mode):
        return f"link {os.readlink(path)}"
    if not stat.S_ISREG(about.st_mode):
        return "no file"
    if about.st_size > _MAX_FINGERPRINT_BYTES:
        return f"{about.st_size} bytes, {about.st_mtime_ns}"
    # It may have been replaced meanwhile.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        content = file.read(_MAX_FINGERPRINT_BYTES)
    digest = hashlib.new(algorithm, b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()
