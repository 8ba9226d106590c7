import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_dispatch.core.agents.describe import ProjectDocuments, describe
from agent_dispatch.model.agent import ProjectFacts

NOTHING = ProjectFacts(healthy=True)


def _of(facts: ProjectFacts = NOTHING, /, **documents: str) -> str:
    return describe(ProjectDocuments(name="infra", **documents), facts)


def test_the_first_paragraph_of_claude_md_comes_before_everything_else() -> None:
    facts = ProjectFacts(healthy=True, mcp_servers=("portainer",), stacks=("Python", "Docker"))
    text = _of(facts, claude_md="# Infra\n\nInfrastructure agent.\n", readme="A README line.")
    assert text == "Infrastructure agent. MCP: portainer. Stack: Python, Docker"


@pytest.mark.parametrize(
    ("claude_md", "expected"),
    [
        ("Runs the\ncontainers.\n\nMore.", "Runs the containers."),
        ("Title of it\n===========\n\nRuns the containers.", "Runs the containers."),
        ("---\nname: Some words here\n---\nRuns the containers.", "Runs the containers."),
        ("+++\nname = 1\n+++\n\nRuns the containers.", "Runs the containers."),
        ("# T\n<!-- a comment\nover lines -->\nRuns the containers.", "Runs the containers."),
        ("Runs <!-- not here --> the containers.", "Runs the containers."),
        ("```sh\nmake everything now\n```\nRuns the containers.", "Runs the containers."),
        ("~~~~\n~~~\nstill some code\n~~~~\nRuns the containers.", "Runs the containers."),
        ("```\nnever closed, all of it code", "infra"),
        ("    indented code here\n\nRuns the containers.", "Runs the containers."),
        ("- a list of things\n  with more\n\nRuns the containers.", "Runs the containers."),
        ("1. a list of things\n\nRuns the containers.", "Runs the containers."),
        ("| a | table here |\n|---|---|\n\nRuns the containers.", "Runs the containers."),
        ("Commands to know:\n- make all\n\nRuns the containers.", "Runs the containers."),
        ("@AGENTS.md\n\nRuns the containers.", "Runs the containers."),
        ("> Runs the\n> containers.", "Runs the containers."),
        ("> [!NOTE]\n> Read this first.\n\nRuns the containers.", "Runs the containers."),
        ("Short.\n\nRuns the containers.", "Runs the containers."),
        ("**Runs** the `containers` of *us*.", "Runs the containers of us."),
        ("Runs [the containers](https://x/y) _here_.", "Runs the containers here."),
        ("Runs snake_case_names in here.", "Runs snake_case_names in here."),
        ("# Infra\nRuns the containers.\n# Next\nOther words here.", "Runs the containers."),
        ("\ufeff# T\n\nRuns the containers.\r\n\r\nMore.", "Runs the containers."),
        ("运行容器平台。", "运行容器平台。"),
        ("***\n\nRuns the containers.", "Runs the containers."),
        (
            "# X\n\nThis file provides guidance to Claude Code.\n\n## Y\n\nRuns the containers.",
            "Runs the containers.",
        ),
    ],
)
def test_text_that_is_not_prose_is_skipped(claude_md: str, expected: str) -> None:
    assert _of(claude_md=claude_md) == expected


@pytest.mark.parametrize(
    "readme",
    [
        "[![CI](https://b/ci.svg)](https://ci) ![x](y.png)\n\nKeeps the books.",
        "[![CI][badge]][link]\nKeeps the books.\n\n[badge]: https://x/y.svg and more",
        "[badge]: https://example.org/a-long-one\n\nKeeps the books.",
        '<p align="center">\n  <img src="x.png"\n   width="9">\n</p>\n\nKeeps the books.',
        '<h1 align="center">The Great Books Tool</h1>\n<p>Keeps the books.</p>',
        "[Docs](https://d) | [Website](https://w) | [Chat](https://c)\n\nKeeps the books.",
        "Books\n=====\n\n.. image:: x.png\n   :alt: some words\n\nKeeps the books.",
    ],
)
def test_a_readme_is_read_past_badges_markup_and_menus(readme: str) -> None:
    assert _of(claude_md="# only a heading\n", readme=readme) == "Keeps the books."


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ({"pyproject": '[project]\ndescription = "Python  things\\n"'}, "Python things"),
        ({"pyproject": '[tool.poetry]\ndescription = "Poetry things"'}, "Poetry things"),
        ({"pyproject": '[project]\ndescription = "cut off he'}, "infra"),
        ({"pyproject": "project = 3\ntool = []"}, "infra"),
        ({"pyproject": "x = " + "[" * 9999}, "infra"),
        ({"package_json": '{"description": "Node things"}'}, "Node things"),
        ({"package_json": '{"description": 5}'}, "infra"),
        ({"package_json": "[]"}, "infra"),
        ({"package_json": '{"x": ' + "[" * 99999}, "infra"),
        (
            {"pyproject": "[project]", "package_json": '{"description": "Node things"}'},
            "Node things",
        ),
        ({"readme": "- list\n", "package_json": '{"description": "Node things"}'}, "Node things"),
    ],
)
def test_the_description_of_the_package_is_the_next_choice(
    documents: dict[str, str], expected: str
) -> None:
    assert _of(**documents) == expected


def test_without_any_words_the_directory_names_it() -> None:
    facts = ProjectFacts(healthy=True, dbs=("Alembic", "migrations"))
    assert _of(facts) == "infra. DB: Alembic, migrations"
    assert describe(ProjectDocuments(name=""), NOTHING) == "project"


@pytest.mark.parametrize("end", [".", "!"])
def test_a_complete_sentence_gets_no_second_full_stop(end: str) -> None:
    facts = ProjectFacts(healthy=True, stacks=("Go",))
    assert _of(facts, readme=f"Keeps the books{end}") == f"Keeps the books{end} Stack: Go"


def test_many_names_are_counted_instead_of_listed() -> None:
    facts = ProjectFacts(healthy=True, mcp_servers=tuple(f"s{number}" for number in range(40)))
    assert _of(facts).endswith("s10, s11, and 28 more")


def test_a_long_text_is_cut_between_words() -> None:
    text = _of(readme="word " * 500)
    assert len(text) <= 300
    assert text.endswith(" word…")


def test_control_and_direction_characters_do_not_get_through() -> None:
    assert _of(readme="Keeps \x1b[31mthe\u202e\x00 books\u2028now.") == "Keeps [31mthe books now."


TEXT = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ["![", "[", "](", ")", "<", ">", "<!--", "-->", "```", "\n", "*", "_", "# ", "w"]
    ),
    max_size=60,
).map("".join)


@settings(deadline=None)
@given(name=TEXT, claude_md=TEXT, readme=TEXT, servers=st.lists(TEXT, max_size=20))
def test_any_project_gets_one_short_line_to_print(
    name: str, claude_md: str, readme: str, servers: list[str]
) -> None:
    documents = ProjectDocuments(name=name, claude_md=claude_md, readme=readme)
    text = describe(documents, ProjectFacts(healthy=True, mcp_servers=tuple(servers)))
    assert 0 < len(text) <= 600
    assert text.isprintable()
    assert text == text.strip()


@pytest.mark.parametrize(
    "unit", ["![", "[", "[a](", "<a", "<!--", "<h1>", "*", "_a", "```\n", "[![", "a\n\n", "> ", "-"]
)
def test_hostile_markup_takes_no_time(unit: str) -> None:
    started = time.process_time()
    _of(claude_md=unit * (65536 // len(unit)), readme=unit * 20000 + "\n\nx")
    assert time.process_time() - started < 2
