import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_dispatch.config.edit.draft import Draft, SpliceError
from agent_dispatch.config.edit.toml import TOML, parse_toml
from tests.config.toml_texts import documents

INFRA = ("agents", "infra")


def _set(text: str, changes: dict[str, Any], table: tuple[str, ...] = INFRA) -> str:
    draft = Draft(text, TOML)
    draft.set_keys(table, changes)
    return draft.text


def _removed(text: str, table: tuple[str, ...] = INFRA) -> str:
    draft = Draft(text, TOML)
    draft.remove_table(table)
    return draft.text


def _added(text: str, values: dict[str, Any], table: tuple[str, ...] = INFRA) -> str:
    draft = Draft(text, TOML)
    draft.add_table(table, values)
    return draft.text


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (
            "[agents.infra]\ndirectory = '/a' # here\n# model = 'x'\n",
            {"directory": "/b"},
            "[agents.infra]\ndirectory = \"/b\" # here\n# model = 'x'\n",
        ),
        (
            "[agents.infra]\n  directory = '/a'\n\n[agents.b]\n",
            {"timeout": 60},
            "[agents.infra]\n  directory = '/a'\n  timeout = 60\n\n[agents.b]\n",
        ),
        ("[agents.infra]", {"timeout": 1.5}, "[agents.infra]\ntimeout = 1.5\n"),
        (
            "[agents.infra]\r\nmodel = 'x'\r\ntimeout = 3\r\n",
            {"model": None, "description": "d"},
            '[agents.infra]\r\ntimeout = 3\r\ndescription = "d"\r\n',
        ),
        (
            "[agents]\ninfra = { directory = '/a' } # one line\n",
            {"model": "m", "directory": "/b"},
            '[agents]\ninfra = { directory = "/b", model = "m" } # one line\n',
        ),
        ("agents = { infra = {} }\n", {"model": "m"}, 'agents = { infra = { model = "m" } }\n'),
        (
            "agents.infra.directory = '/a'\nother = 1\n",
            {"model": "m"},
            "agents.infra.directory = '/a'\nagents.infra.model = \"m\"\nother = 1\n",
        ),
        (
            "[agents]\ninfra.directory = '/a'\ninfra.model = 'x'\nb.directory = '/b'\n",
            {"model": None, "timeout": 5},
            "[agents]\ninfra.directory = '/a'\ninfra.timeout = 5\nb.directory = '/b'\n",
        ),
        (
            "[agents.infra]\nmodel = { bad = 1 }\n[agents.infra.timeout]\nx = 1\n",
            {"model": "m", "timeout": 5},
            '[agents.infra]\nmodel = "m"\ntimeout = 5\n',
        ),
        (
            "[agents.infra.env]\nA = 1\n",
            {"directory": "/a"},
            '[agents.infra.env]\nA = 1\n\n[agents.infra]\ndirectory = "/a"\n',
        ),
        (
            "[agents.infra]\nallowed_tools = [\n  'Bash', # why\n]\n# end\n",
            {"allowed_tools": []},
            "[agents.infra]\nallowed_tools = []\n# end\n",
        ),
        (
            "[agents]\ninfra = { a = 1, model = 'x', b = 2, timeout = 3 }\n",
            {"model": None, "timeout": None},
            "[agents]\ninfra = { a = 1, b = 2 }\n",
        ),
        ("[agents]\ninfra = { model = 'x' }\n", {"model": None}, "[agents]\ninfra = {  }\n"),
    ],
)
def test_a_key_changes_where_it_stands(before: str, changes: dict[str, Any], after: str) -> None:
    assert _set(before, changes) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[agents.infra]\ndirectory = '/a'\n", ""),
        ("# mine\n\n[agents.infra]\nx = 1\n", "# mine\n"),
        ("# title\n[agents.infra]\nx = 1\n\n[b]\n", "# title\n\n[b]\n"),
        (
            "[a]\n\n# of infra\n[agents.infra]\nx = 1\n# x = 2\n\n# of b\n[b]\n",
            "[a]\n\n# of b\n[b]\n",
        ),
        ("[a]\n[agents.infra]\nx = 1\n# of b\n[b]\n", "[a]\n# of b\n[b]\n"),
        ("[a]\n[agents.infra]\nx = 1\n\n[b]\n", "[a]\n\n[b]\n"),
        ("[a]\nx = '''\n# no comment\n'''\n[agents.infra]\n", "[a]\nx = '''\n# no comment\n'''\n"),
        ("[agents.infra]\n[b]\n[agents.infra.c]\nx = 1\n[d]\n", "[b]\n[d]\n"),
        ("[agents]\ninfra = { a = 1 }\nb = { c = 1 }\n", "[agents]\nb = { c = 1 }\n"),
        ("agents = { a = {}, infra = { x = 1 } }\n", "agents = { a = {} }\n"),
        ("agents = { infra = { x = 1 }, a = {} }\n", "agents = { a = {} }\n"),
        ("agents = { infra.x = 1, infra.y = 2 }\n", "agents = {  }\n"),
        ("[agents]\ninfra.x = 1\nb.x = 2\ninfra.y = 3\n", "[agents]\nb.x = 2\n"),
        ("[agents]\ninfra = 5\n", "[agents]\n"),
        ("[[agents.infra]]\nx = 1\n[[agents.infra]]\nx = 2\n", ""),
        ("[agents.infra]\nx = 1\n\n# alone\n\n[b]\n", "# alone\n\n[b]\n"),
    ],
)
def test_a_table_goes_with_the_comments_that_are_plainly_its_own(before: str, after: str) -> None:
    assert _removed(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[agents.infra]\ndirectory = "/a"\n'),
        ("[settings]", '[settings]\n\n[agents.infra]\ndirectory = "/a"\n'),
        ("# c\n\n", '# c\n\n[agents.infra]\ndirectory = "/a"\n'),
        ("x = 1\r\n", 'x = 1\r\n\r\n[agents.infra]\r\ndirectory = "/a"\r\n'),
        ("agents = {}\n", 'agents = { infra = { directory = "/a" } }\n'),
        ("agents = { b = {} }\n", 'agents = { b = {}, infra = { directory = "/a" } }\n'),
        ("agents.b.x = 1\n", 'agents.b.x = 1\n\n[agents.infra]\ndirectory = "/a"\n'),
    ],
)
def test_a_new_table_goes_to_the_end_or_into_the_inline_table(before: str, after: str) -> None:
    assert _added(before, {"directory": "/a"}) == after


def test_a_name_that_is_not_a_bare_key_is_quoted() -> None:
    text = _added("", {"x": 1}, ("agents", 'a "b".c\n'))
    assert text == '[agents."a \\"b\\".c\\n"]\nx = 1\n'


def test_a_long_list_takes_a_line_for_each_item() -> None:
    tools = [f"mcp__server__tool_{number}" for number in range(8)]
    text = _added("", {"allowed_tools": tools})
    assert tomllib.loads(text)["agents"]["infra"]["allowed_tools"] == tools
    assert text.count("\n") == 11


def test_values_of_others_that_equal_nothing_are_no_obstacle() -> None:
    text = "[x]\na = nan\nb = [nan, -0.0]\n[agents.infra]\n"
    assert _set(text, {"model": "m"}).startswith(text)


def test_a_value_that_only_looks_equal_is_written() -> None:
    assert "timeout = 1\n" in _set("[agents.infra]\ntimeout = true\n", {"timeout": 1})


def test_a_shape_that_cannot_be_changed_in_place_is_refused_and_left_alone() -> None:
    draft = Draft("agents.infra = 5\n", TOML)
    with pytest.raises(SpliceError, match=r"agents\.infra is not a table"):
        draft.set_keys(INFRA, {"model": "m"})
    draft = Draft("[[agents]]\nname = 'x'\n", TOML)
    with pytest.raises(SpliceError):
        draft.add_table(INFRA, {"directory": "/a"})
    assert draft.text == "[[agents]]\nname = 'x'\n"


def test_nesting_without_end_is_a_parse_error() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml("a = " + "[" * 5000)


def _join(blocks: list[tuple[str | None, str]], newline: str) -> str:
    return "\n".join(text for _, text in blocks).replace("\n", newline)


def _surroundings(blocks: list[tuple[str | None, str]], name: str, newline: str) -> tuple[str, str]:
    index = [owner for owner, _ in blocks].index(name)
    before = "".join(text + "\n" for _, text in blocks[:index]).replace("\n", newline)
    after = "".join("\n" + text for _, text in blocks[index + 1 :]).replace("\n", newline)
    return before, after


NEWLINES = st.sampled_from(["\n", "\r\n"])
CHANGES = st.dictionaries(
    st.sampled_from(["directory", "description", "model", "timeout", "allowed_tools"]),
    st.none()
    | st.text(max_size=20)
    | st.integers(0, 9)
    | st.lists(st.text(max_size=5), max_size=3),
    min_size=1,
)


@settings(deadline=None)
@given(blocks=documents(), newline=NEWLINES, changes=CHANGES, pick=st.integers(0, 5))
def test_editing_one_agent_leaves_every_byte_outside_its_table(
    blocks: list[tuple[str | None, str]], newline: str, changes: dict[str, Any], pick: int
) -> None:
    names = [name for name, _ in blocks if name is not None]
    name = names[pick % len(names)]
    text = _set(_join(blocks, newline), changes, ("agents", name))
    before, after = _surroundings(blocks, name, newline)
    assert text.startswith(before)
    assert text.endswith(after)
    # Without any key, a table on lines of its own is no more.
    table = tomllib.loads(text).get("agents", {}).get(name, {})
    assert {key: table.get(key) for key in changes} == changes


@settings(deadline=None)
@given(blocks=documents(), newline=NEWLINES, pick=st.integers(0, 5))
def test_removing_one_agent_leaves_every_other_block(
    blocks: list[tuple[str | None, str]], newline: str, pick: int
) -> None:
    names = [name for name, _ in blocks if name is not None]
    name = names[pick % len(names)]
    text = _removed(_join(blocks, newline), ("agents", name))
    rest = [block for block in blocks if block[0] != name]
    if name.startswith("line-"):
        before, after = _surroundings(blocks, name, newline)
        assert text == before + after
    elif blocks[0][0] == name and blocks[0][1].startswith("#"):
        # A comment that opens the file may be about all of it, so it stays.
        assert text.endswith(_join(rest, newline))
    else:
        assert text == _join(rest, newline)


@settings(deadline=None)
@given(blocks=documents(), newline=NEWLINES)
def test_adding_and_removing_an_agent_gives_the_same_text_again(
    blocks: list[tuple[str | None, str]], newline: str
) -> None:
    text = _join(blocks, newline)
    values = {"directory": "/new", "allowed_tools": ["Bash(git log:*)"], "timeout": 5}
    draft = Draft(text, TOML)
    draft.add_table(("agents", "new"), values)
    assert draft.text.startswith(text)
    assert draft.data["agents"]["new"] == values
    draft.remove_table(("agents", "new"))
    assert draft.text == text


@settings(deadline=None)
@given(blocks=documents(), newline=NEWLINES)
def test_setting_and_clearing_a_key_gives_the_same_text_again(
    blocks: list[tuple[str | None, str]], newline: str
) -> None:
    text = _join(blocks, newline)
    name = next(name for name, _ in blocks if name is not None)
    draft = Draft(text, TOML)
    draft.set_keys(("agents", name), {"permission_mode": "plan"})
    assert draft.data["agents"][name]["permission_mode"] == "plan"
    draft.set_keys(("agents", name), {"permission_mode": None})
    assert draft.text == text
