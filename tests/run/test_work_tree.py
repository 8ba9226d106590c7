"""What a run changed in its Git work tree, through the whole service, with the real Git."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.model.dispatch import Evidence
from agent_dispatch.run import work_tree
from tests.run.stage import Stage, task

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

AUTHOR = {
    **{
        f"GIT_{role}_{what}": "a@b.invalid"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
    "GIT_CONFIG_GLOBAL": os.devnull,
}
GIT = "import subprocess\n" + f"os.environ.update({AUTHOR!r})\n"
GIT += """
def git(*words):
    subprocess.run(["git", *words], check=True, capture_output=True)
def write(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
"""


class Repository(Stage):
    """A repository with a few files, in which, or below which, an agent works."""

    def __init__(self, fork_server: ForkServer, directory: Path) -> None:
        super().__init__(fork_server, directory)
        self.top = directory / "repository"
        self.agent = self.top
        self.top.mkdir()
        self.git("init", "-q", "-b", "main")
        for name in ("one.txt", "two.txt", "sub/three.txt"):
            self.write(name, f"{name}\n" * 20)
        self.write(".gitignore", "*.log\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", "begin")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.top,
            env={**os.environ, **AUTHOR},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def configure(self, timeout_s: float = 60, settings: str = "") -> None:
        (self.directory / "agents.toml").write_text(
            f'[agents.infra]\ndirectory = "{self.agent}"\ntimeout = {timeout_s}\n'
            f"[settings]\n{settings}\n"
        )

    async def evidence(self, script: str) -> Evidence:
        """What was seen of a run whose agent executes `script` in its directory."""
        begin = f"os.chdir({str(self.agent)!r})\n{GIT}\ninit()\n"
        found = (await self.play(f"{begin}{script}\nresult()\n", timeout_s=30)).evidence
        assert found is not None
        return found


def living(pids: list[str]) -> list[str]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def repository(fork_server: ForkServer, tmp_path: Path) -> Repository:
    return Repository(fork_server, tmp_path)


async def test_a_run_that_changes_nothing_has_no_files(repository: Repository) -> None:
    assert await repository.evidence("") == Evidence(tool_calls=0, read_only=True)


async def test_changed_deleted_renamed_and_new_files_are_named(repository: Repository) -> None:
    seen = await repository.evidence("""
write("one.txt", "another")
os.unlink("two.txt")
git("mv", "sub/three.txt", "sub/moved.txt")
write("new/file.txt", "new")
write("noise.log", "ignored")
""")
    assert seen.files_changed == ["new/file.txt", "one.txt", "sub/moved.txt", "two.txt"]
    assert seen.commits is None


async def test_a_file_that_is_moved_without_git_has_its_new_name(repository: Repository) -> None:
    seen = await repository.evidence('os.rename("one.txt", "uno.txt")')
    assert seen.files_changed == ["uno.txt"]


async def test_commits_are_named_oldest_first_with_their_files(repository: Repository) -> None:
    seen = await repository.evidence("""
write("one.txt", "another"); git("commit", "-aqm", "first")
write("new.txt", "new"); git("add", "."); git("commit", "-qm", "second")
git("mv", "two.txt", "deux.txt"); git("commit", "-qm", "third")
git("commit", "-q", "--allow-empty", "-m", "empty")
""")
    assert seen.files_changed == ["deux.txt", "new.txt", "one.txt"]
    assert seen.commits == repository.git("log", "-4", "--format=%H", "--reverse").split()


async def test_commits_on_a_branch_that_was_left_again_count(repository: Repository) -> None:
    seen = await repository.evidence("""
git("checkout", "-qb", "fix"); write("one.txt", "x"); git("commit", "-aqm", "fix")
git("checkout", "-q", "main")
""")
    assert seen.commits == [repository.git("rev-parse", "fix")]
    assert seen.files_changed == ["one.txt"]


async def test_commits_that_were_there_do_not_count(repository: Repository) -> None:
    repository.git("checkout", "-qb", "old")
    repository.write("old.txt", "old")
    repository.git("add", ".")
    repository.git("commit", "-qm", "old")
    repository.git("checkout", "-q", "main")
    seen = await repository.evidence('git("checkout", "-q", "old")')
    assert seen.commits is None


async def test_the_first_commit_of_a_repository_counts(repository: Repository) -> None:
    shutil.rmtree(repository.top / ".git")
    repository.git("init", "-q", "-b", "main")
    seen = await repository.evidence('git("add", "one.txt"); git("commit", "-qm", "first")')
    assert seen.commits == [repository.git("rev-parse", "HEAD")]
    # The content is what it was.
    assert seen.files_changed is None


async def test_what_was_dirty_before_counts_only_with_another_content(
    repository: Repository,
) -> None:
    repository.write("one.txt", "mine")
    repository.write("two.txt", "mine too")
    repository.write("new.txt", "untracked")
    repository.write("staged.txt", "staged")
    repository.git("add", "staged.txt")
    (repository.top / "sub/three.txt").unlink()
    seen = await repository.evidence("""
write("one.txt", "mine")
git("add", "."); git("commit", "-qm", "what was there")
write("two.txt", "theirs")
""")
    assert seen.files_changed == ["two.txt"]
    assert seen.commits is not None


async def test_restoring_what_was_dirty_is_a_change(repository: Repository) -> None:
    repository.write("one.txt", "mine")
    (repository.top / "two.txt").unlink()
    repository.write("new.txt", "untracked")
    seen = await repository.evidence('git("checkout", "."); os.unlink("new.txt")')
    assert seen.files_changed == ["new.txt", "one.txt", "two.txt"]


async def test_a_dirty_file_that_was_written_again_by_a_tool_counts(
    repository: Repository,
) -> None:
    repository.write("one.txt", "mine")
    seen = await repository.evidence("""
emit(type="assistant", message={"content": [{"type": "tool_use", "id": "t", "name": "Write",
     "input": {"file_path": os.path.abspath("one.txt")}}]})
emit(type="user", message={"content": [{"type": "tool_result", "tool_use_id": "t"}]})
""")
    assert seen.files_changed == ["one.txt"]


async def test_paths_start_at_the_agents_directory(repository: Repository) -> None:
    repository.agent = repository.top / "sub"
    seen = await repository.evidence('write("here.txt", "x"); write("../one.txt", "x")')
    assert seen.files_changed == ["../one.txt", "here.txt"]


async def test_a_directory_that_is_a_link_is_the_same_directory(
    repository: Repository, tmp_path: Path
) -> None:
    repository.agent = tmp_path / "link"
    repository.agent.symlink_to(repository.top / "sub")
    seen = await repository.evidence('write("here.txt", "x")')
    assert seen.files_changed == ["here.txt"]


async def test_a_linked_work_tree_is_looked_at(repository: Repository, tmp_path: Path) -> None:
    repository.agent = tmp_path / "linked"
    repository.git("worktree", "add", "-q", str(repository.agent))
    seen = await repository.evidence('write("one.txt", "x"); git("commit", "-aqm", "in it")')
    assert seen.files_changed == ["one.txt"]
    assert len(seen.commits or []) == 1


async def test_commits_in_another_work_tree_are_somebody_elses(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("worktree", "add", "-q", str(tmp_path / "linked"))
    seen = await repository.evidence(f"""
os.chdir({str(tmp_path / "linked")!r})
write("one.txt", "x"); git("commit", "-aqm", "theirs")
""")
    assert (seen.commits, seen.files_changed) == (None, None)


async def test_odd_names_are_named(repository: Repository) -> None:
    seen = await repository.evidence(r"""
for name in ("a b", "ü", "line\nfeed", '"quoted"', "tab\there", "e" * 40):
    write(name, "x")
write(b"\xff".decode(errors="surrogateescape"), "x")
""")
    assert set(seen.files_changed or []) == {
        *("a b", "ü", "line\nfeed", '"quoted"', "tab\there", "e" * 40, "\ufffd")
    }


async def test_at_most_200_files_are_named(repository: Repository) -> None:
    seen = await repository.evidence('for n in range(300): write(f"f{n:03}", "x")')
    assert seen.files_changed == [f"f{number:03}" for number in range(200)]


async def test_outside_of_git_there_is_nothing_to_compare(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    stage = Stage(fork_server, tmp_path)
    done = await stage.play(f'open("{tmp_path}/x", "w"); init(); result()')
    assert done.evidence == Evidence(tool_calls=0, read_only=True)


@pytest.mark.parametrize("damage", ["HEAD", "index", "config", "everything"])
async def test_a_broken_repository_costs_no_answer(repository: Repository, damage: str) -> None:
    git = repository.top / ".git"
    if damage == "everything":
        shutil.rmtree(git)
        git.write_text("not a repository")
    else:
        (git / damage).write_bytes(b"\0broken")
    assert (await repository.evidence('write("one.txt", "x")')).tool_calls == 0


async def test_a_git_that_hangs_costs_a_bounded_time_and_leaves_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_tree, "LOOK_S", 0.5)
    folder = tmp_path / "bin"
    folder.mkdir()
    pids = tmp_path / "pids"
    hanging = folder / "git"
    hanging.write_text(f"#!/bin/sh\necho $$ >> {pids}\nsleep 1000\n")
    hanging.chmod(0o755)
    repository.environ["PATH"] = f"{folder}:{repository.environ['PATH']}"
    begun = trio.current_time()
    assert (await repository.evidence("")).files_changed is None
    assert trio.current_time() - begun < 20
    assert not living(pids.read_text().split())


async def test_without_git_there_is_no_evidence_of_it(repository: Repository) -> None:
    repository.environ["PATH"] = "/nonexistent"
    script = 'open("made", "w").close()'
    assert (await repository.evidence(script)).files_changed is None


async def test_nothing_that_the_repository_names_is_run(
    repository: Repository, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/sprung\ncat\n')
    trap.chmod(trap.stat().st_mode | stat.S_IXUSR)
    hooks = repository.top / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        shutil.copy(trap, hooks / hook)
    for key in (
        *("core.fsmonitor", "core.sshCommand", "core.askPass", "core.pager", "pager.status"),
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.external"),
        *("diff.evil.textconv", "diff.evil.command", "gpg.program", "core.alternateRefsCommand"),
        *("filter.a=b.clean", "filter.with space.process", "core.gitProxy", "core.editor"),
    ):
        repository.git("config", key, str(trap))
    repository.git("config", "filter.evil.required", "true")
    repository.git("config", "log.showSignature", "true")
    repository.git("config", "protocol.ext.allow", "always")
    repository.git("config", "core.worktree", "/")
    info = repository.top / ".git/info/attributes"
    info.parent.mkdir(exist_ok=True)
    info.write_text("one.txt filter=evil diff=evil\ntwo.txt filter=a=b\n*.txt diff=evil\n")
    repository.write(".gitattributes", "three.txt filter=evil\n")
    (tmp_path / "sprung").unlink(missing_ok=True)
    repository.write("one.txt", "dirty before")
    seen = await repository.evidence("""
write("one.txt", "x"); write("two.txt", "y"); write("new", "z")
os.utime("sub/three.txt")
""")
    assert seen.files_changed == ["new", "one.txt", "two.txt"]
    assert not (tmp_path / "sprung").exists()


async def test_the_caller_cannot_send_git_elsewhere(repository: Repository, tmp_path: Path) -> None:
    repository.environ |= {"GIT_DIR": str(tmp_path), "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/x"}
    seen = await repository.evidence("""
for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"): os.environ.pop(name, None)
write("one.txt", "x")
""")
    assert seen.files_changed == ["one.txt"]


async def test_a_failed_and_a_timed_out_run_have_their_evidence(repository: Repository) -> None:
    begin = f"os.chdir({str(repository.agent)!r})\n{GIT}\ninit()\nwrite('one.txt', 'x')\n"
    failed = await repository.play(begin + "sys.exit(3)")
    assert (failed.success, failed.evidence and failed.evidence.files_changed) == (
        False,
        ["one.txt"],
    )
    repository.configure(timeout_s=1)
    timed_out = await repository.play(begin + "write('two.txt', 'x')\ntime.sleep(100)")
    assert timed_out.error_type == "timeout"
    assert timed_out.evidence is not None
    assert timed_out.evidence.files_changed == ["two.txt"]


async def test_a_cancellation_during_the_last_look_costs_no_answer(
    repository: Repository, tmp_path: Path
) -> None:
    # The second time, Git is slow.
    folder = tmp_path / "bin"
    folder.mkdir()
    slow, real = folder / "git", shutil.which("git")
    wait = f"if [ -e {tmp_path}/slow ]; then : > {tmp_path}/asked; sleep 100; fi"
    slow.write_text(f'#!/bin/sh\n{wait}\nexec {real} "$@"\n')
    slow.chmod(0o755)
    repository.environ["PATH"] = f"{folder}:{repository.environ['PATH']}"
    tree = repository.tree(f"init(); open({str(tmp_path / 'slow')!r}, 'w'); result('paid for')")
    with trio.fail_after(60):
        async with repository.open(tree) as service, trio.open_nursery() as nursery:
            nursery.start_soon(service.dispatch, task("go"))
            while not (tmp_path / "asked").exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        async with repository.open(tree) as service:
            (job,) = (await service.jobs.newest()).jobs
            result = await service.jobs.result(job.id)
    assert (result.success, result.result) == (True, "paid for")
    assert result.evidence == Evidence(tool_calls=0, read_only=True)


async def test_a_repository_of_the_newer_hash_is_looked_at_as_well(
    repository: Repository,
) -> None:
    shutil.rmtree(repository.top / ".git")
    repository.git("init", "-q", "--object-format=sha256")
    repository.git("add", ".")
    repository.git("commit", "-qm", "begin")
    repository.write("dirty.txt", "mine")
    seen = await repository.evidence("""
os.rename("one.txt", "uno.txt"); write("two.txt", "x"); git("commit", "-qm", "two", "two.txt")
""")
    assert seen.files_changed == ["two.txt", "uno.txt"]
    assert [len(commit) for commit in seen.commits or []] == [64]


async def test_a_submodule_is_a_repository_of_its_own(
    repository: Repository, tmp_path: Path
) -> None:
    allow = ("-c", "protocol.file.allow=always")
    repository.git(*allow, "clone", "-q", str(repository.top), str(tmp_path / "other"))
    repository.git(*allow, "submodule", "add", "-q", str(tmp_path / "other"), "part")
    repository.git("commit", "-qm", "part")
    repository.agent = repository.top / "part"
    seen = await repository.evidence('write("one.txt", "x"); git("commit", "-aqm", "inside")')
    assert (seen.files_changed, len(seen.commits or [])) == (["one.txt"], 1)
    repository.agent = repository.top
    repository.configure()
    seen = await repository.evidence('write("part/two.txt", "x"); write("one.txt", "x")')
    assert seen.files_changed == ["one.txt"]


async def test_more_changes_than_can_be_read_are_no_evidence(repository: Repository) -> None:
    seen = await repository.evidence("""
for number in range(20_000):
    open(f"{number:05}" + "x" * 240, "w").close()
""")
    assert seen.files_changed is None


async def test_what_is_no_file_is_not_read(repository: Repository) -> None:
    os.mkfifo(repository.top / "pipe")
    (repository.top / "link").symlink_to("/dev/zero")
    (repository.top / "one.txt").unlink()
    (repository.top / "one.txt").symlink_to("/etc/hostname")
    seen = await repository.evidence("""
os.unlink("link"); os.symlink("/dev/null", "link")
os.mkfifo("new-pipe"); write("two.txt", "x")
""")
    assert seen.files_changed == ["link", "two.txt"]
