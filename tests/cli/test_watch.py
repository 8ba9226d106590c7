"""`watch` without a terminal's help: rows, keys, and what the screen shows."""

import msgspec
import pytest

from agent_dispatch.cli.watch.keys import Command, CommandKind, Mode, View, follow, keys_in, press
from agent_dispatch.cli.watch.rows import Item, as_trees, item_of, matching
from agent_dispatch.cli.watch.screen import Scene, draw
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, Evidence
from agent_dispatch.model.job import Job, JobKind, JobStatus, new_job
from agent_dispatch.model.question import Question

NOW = 1_000_000.0


def job(number: int, agent: str = "infra", **fields: object) -> Job:
    """A job whose id ends with the number."""
    made = new_job(
        f"{number:032x}",
        DispatchRequest(agent=agent, task=f"task {number}"),
        NOW - 100 + number,
        kind=JobKind.CALL,
    )
    return msgspec.structs.replace(made, status=JobStatus.RUNNING, **fields)


def done(number: int, agent: str = "infra", **fields: object) -> Job:
    """A job that is done."""
    result = DispatchResult(agent=agent, success=True, result="All is well.", cost_usd=0.12)
    ended = {"status": JobStatus.DONE, "completed_at": NOW - 1, "result": result}
    return msgspec.structs.replace(job(number, agent), **(ended | fields))


def asked(given: object) -> Question:
    return Question(id="q", tool="Bash", input=given, asked_at=1, agent="infra")


def items(*jobs: Job) -> list[Item]:
    return [item_of(job) for job in jobs]


def screen(view: View, *jobs: Job, opened: Job | None = None, **size: int) -> list[str]:
    scene = Scene(
        rows=matching(as_trees(items(*jobs)), view.filter),
        opened=opened,
        transcript=opened.progress or () if opened else (),
        now=NOW,
        width=size.get("width", 100),
        height=size.get("height", 20),
    )
    return [line.plain.rstrip() for line in draw(view, scene)]


# -- rows


def test_jobs_at_work_come_first_and_children_stand_below_their_parent() -> None:
    parent, ended = job(1), done(9)
    child, last = job(3, parent=parent.id), done(2, parent=parent.id)
    grandchild = job(4, "db", parent=child.id)
    rows = as_trees(items(ended, grandchild, child, parent, last))
    assert [(row.stem, int(row.item.id, 16)) for row in rows] == [
        ("", 1),
        ("├ ", 2),
        ("└ ", 3),
        ("  └ ", 4),
        ("", 9),
    ]


def test_the_members_of_a_parallel_call_stand_below_it() -> None:
    members = [job(2, "db"), done(3)]
    group = job(1, agents=["db", "infra"], members=[member.id for member in members])
    rows = as_trees(items(*members, group))
    assert [(row.stem, row.item.agent) for row in rows] == [
        ("", "db + infra"),
        ("├ ", "db"),
        ("└ ", "infra"),
    ]


def test_a_child_at_work_keeps_its_ended_parent_above() -> None:
    parent = done(1)
    rows = as_trees(items(done(5), parent, job(2, parent=parent.id)))
    assert [int(row.item.id, 16) for row in rows] == [1, 2, 5]


def test_a_job_whose_parent_is_not_shown_is_a_root() -> None:
    assert [row.stem for row in as_trees(items(job(1, parent="f" * 32)))] == [""]


@pytest.mark.parametrize(
    ("given", "status", "doing"),
    [
        (job(1, progress=["infra · Bash: ls · 3 s"]), "running", "Bash: ls · 3 s"),
        (job(1), "running", "task 1"),
        (done(1), "done", "All is well."),
        (done(1, status=JobStatus.FAILED, error="It broke.\nBadly."), "failed", "It broke. Badly."),
        (
            job(1, question=Question(id="q", tool="Bash", input={"c": 1}, asked_at=1, agent="i")),
            "asking",
            'Bash: {"c":1}',
        ),
        (
            job(1, question=asked({"command": "ls\n\u202e-l", "description": "x"})),
            "asking",
            "Bash: ls\\u000a\\u202e-l",
        ),
    ],
)
def test_a_row_says_what_the_agent_does_or_how_it_ended(
    given: Job, status: str, doing: str
) -> None:
    assert (item_of(given).status, item_of(given).doing) == (status, doing)


def test_a_row_has_what_was_measured() -> None:
    evidence = Evidence(tool_calls=3, read_only=False, files_changed=["a", "b"])
    result = DispatchResult(agent="infra", success=True, result="x", evidence=evidence)
    assert item_of(done(1, result=result)).evidence == "3 calls, 2 files"


def test_a_filter_needs_all_its_words_anywhere() -> None:
    rows = as_trees(items(job(1, "infra"), done(2, "db")))
    for words, found in (("", 2), ("DB", 1), ("infra running", 1), ("db running", 0)):
        assert len(matching(rows, words)) == found, words


def test_the_columns_fit_the_names_and_an_opened_job_shows_all_of_its_question() -> None:
    waiting = job(1, agents=["web", "db"], question=asked({"command": "ls \u202e", "timeout": 5}))
    [_, heads, row, *_] = screen(View(), waiting, width=80)
    assert row.index("Bash: ls") == heads.index("NOW") == 38 + len("web + db ")
    lines = screen(View(opened=waiting.id), waiting, opened=waiting)
    assert lines[0].startswith("web + db · asking · ")
    assert 'Bash: {"command":"ls \\u202e","timeout":5}' in lines


def test_of_a_long_answer_the_beginning_is_shown() -> None:
    long = done(1, result=DispatchResult(agent="infra", success=True, result="x" * 3_000_000))
    lines = screen(View(opened=long.id), long, opened=long)
    assert "… and 2,980,000 more characters" in lines


# -- keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"\x1b[A\x1b[Bq", ["up", "down", "q"]),
        (b"\x1b", ["escape"]),
        ("é…\r".encode(), ["é", "…", "enter"]),
        (b"\x1b[1;5C\x01\x7f", ["backspace"]),
        (b"\xff\xfe", []),
    ],
)
def test_bytes_of_a_terminal_become_keys(data: bytes, keys: list[str]) -> None:
    assert list(keys_in(data)) == keys


IDS = ["a", "b", "c"]
AT_B = View(selected="b")


def pressed(
    view: View, keys: list[str], asking: tuple[str, ...] = ()
) -> tuple[View, list[Command]]:
    questions = {job_id: f"of {job_id}" for job_id in asking}
    commands = []
    for key in keys:
        view, command = press(view, key, IDS, questions)
        commands += [command] if command else []
    return view, commands


@pytest.mark.parametrize(
    ("keys", "commands"),
    [
        (["q"], [Command(CommandKind.QUIT)]),
        (["enter", "q"], [Command(CommandKind.QUIT)]),
        (["?", "q"], [Command(CommandKind.QUIT)]),
        (["c", "q"], [Command(CommandKind.QUIT)]),
        (["c", "y"], [Command(CommandKind.CANCEL, "b")]),
        (["c", "n"], []),
        (["c", "enter"], []),
        (["down", "c", "y"], [Command(CommandKind.CANCEL, "c")]),
        (["enter", "c", "y"], [Command(CommandKind.CANCEL, "b")]),
        (["m", "g", "o", "q", "enter"], [Command(CommandKind.SEND, "b", text="goq")]),
        (["m", "g", "escape"], []),
        (["m", " ", "enter"], []),
        (["y"], [Command(CommandKind.ANSWER, "b", "of b", allow=True)]),
        (["n"], [Command(CommandKind.ANSWER, "b", "of b")]),
        (["up", "y"], []),
    ],
)
def test_keys_ask_for_commands_about_the_job_under_the_cursor(
    keys: list[str], commands: list[Command]
) -> None:
    assert pressed(AT_B, keys, asking=("b",))[1] == commands


def test_a_question_is_confirmed_and_not_answered_by_the_same_key() -> None:
    assert pressed(AT_B, ["c", "y"], asking=("b",))[1] == [Command(CommandKind.CANCEL, "b")]


def test_nothing_is_asked_of_an_empty_list() -> None:
    for key in ("enter", "m", "c", "y", "down", "end"):
        assert press(View(), key, [], {}) == (View(), None)


def test_the_filter_narrows_while_it_is_typed_and_escape_lifts_it() -> None:
    view, _ = pressed(AT_B, ["/", "d", "b"])
    assert (view.mode, view.filter) == (Mode.FILTER, "db")
    view, _ = pressed(view, ["enter"])
    assert (view.mode, view.filter) == (Mode.BROWSE, "db")
    assert pressed(view, ["escape"])[0].filter == ""


def test_escape_goes_back_from_a_job_to_the_list() -> None:
    view, _ = pressed(AT_B, ["enter", "up", "up"])
    assert (view.opened, view.scroll) == ("b", 2)
    assert pressed(view, ["escape"])[0] == AT_B


def test_the_cursor_stays_on_its_job_while_that_is_listed() -> None:
    assert follow(AT_B, ["x", "b"]) == AT_B
    assert follow(AT_B, ["x", "y"]).selected == "x"
    assert follow(AT_B, []) == AT_B


# -- the screen


@pytest.mark.parametrize(("width", "height"), [(100, 20), (80, 24), (40, 10), (10, 3), (1, 2)])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("opened", [None, done(1, "日本語" * 20, task="x\ty" * 300)])
def test_a_screen_is_filled_exactly_and_no_line_is_too_wide(
    width: int, height: int, mode: Mode, opened: Job | None
) -> None:
    jobs = [job(number, "日本語のエージェント" * 3) for number in range(50)]
    view = View(mode=mode, selected=jobs[7].id, typed="t" * 200)
    scene = Scene(as_trees(items(*jobs)), opened, ["line"] * 30, NOW, width, height)
    lines = draw(view, scene)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width


def test_the_list_shows_status_age_cost_agent_and_what_is_done() -> None:
    running = job(1, progress=["infra · Bash: kubectl logs web-1 · 12 s"])
    lines = screen(View(), running, done(2, "db"))
    assert lines[0] == "agent-dispatch · 1 running · 1 ended in the last hour"
    assert lines[2].split() == [
        *("00000001", "running", "1", "min", "infra"),
        *["Bash:", "kubectl", "logs", "web-1", "·", "12", "s"],
    ]
    assert lines[3].split() == ["00000002", "done", "1", "min", "$0.12", "db", "All", "is", "well."]


def test_the_cursor_is_on_the_screen_however_long_the_list() -> None:
    jobs = [job(number) for number in range(1, 200)]
    for number in (1, 100, 199):
        shown = screen(View(selected=jobs[number - 1].id), *jobs)
        assert any(f"{number:08x}" in line for line in shown)


def test_an_opened_job_shows_task_transcript_question_and_answer() -> None:
    question = Question(id="q", tool="Bash", input={"command": "rm x"}, asked_at=1, agent="infra")
    asking = job(1, progress=["infra · I look."], question=question)
    text = "\n".join(screen(View(opened=asking.id), asking, opened=asking))
    for part in ("task 1", "infra · I look.", "y allows this call", '{"command":"rm x"}'):
        assert part in text
    ended = done(2)
    assert "All is well." in "\n".join(screen(View(opened=ended.id), ended, opened=ended))


def test_an_opened_group_shows_a_line_for_each_member() -> None:
    members = [done(3, "db"), job(2, "web", progress=["web · I look."])]
    group = job(1, "web", members=[member.id for member in members])
    lines = screen(View(opened=group.id), group, *members, opened=group)
    start = lines.index("Members") + 1
    assert ["db" in line for line in lines[start : start + 2]] == [True, False]
    assert "I look." in lines[start + 1]
    assert lines[start + 2] == ""


def test_an_opened_job_scrolls_back_and_no_further_than_its_beginning() -> None:
    long = done(1, result=DispatchResult(agent="i", success=True, result="\n".join("abcdefgh" * 9)))
    ends = screen(View(opened=long.id), long, opened=long, height=12)
    begins = screen(View(opened=long.id, scroll=10_000), long, opened=long, height=12)
    assert ends[-2] == "h"
    assert begins[2] == "Task"


def test_an_agents_words_move_no_cursor() -> None:
    evil = done(1, result=DispatchResult(agent="i", success=True, result="a\x1b[2Jb\x07c"))
    for view, opened in ((View(), None), (View(opened=evil.id), evil)):
        assert "\x1b" not in "\n".join(screen(view, evil, opened=opened))
        assert "abc" in "\n".join(screen(view, evil, opened=opened))
