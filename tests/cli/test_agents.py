from pathlib import Path

import pytest

from tests.cli.support import World


@pytest.fixture
def infra(world: World) -> Path:
    return world.project(
        "infra",
        {
            "CLAUDE.md": "# Infra\n\nRuns the containers.\n",
            ".mcp.json": '{"mcpServers": {"portainer": {"command": "x"}}}',
            "Dockerfile": "FROM scratch\n",
        },
    )


def test_without_agents_the_command_that_adds_one_is_told(world: World) -> None:
    assert world.run("list") == 0
    assert "agent-dispatch add NAME DIRECTORY" in world.out
    assert world.run("list", "--json") == 0
    assert world.answer() == []


def test_an_added_agent_is_listed_with_health_facts_and_permissions(
    world: World, infra: Path
) -> None:
    assert (
        world.run("add", "infra", str(infra), "--allowed-tools", "Bash(git log:*,git diff:*),Read")
        == 0
    )
    assert world.out.startswith(f"Added infra: {infra}\n")
    assert world.run("list") == 0
    assert world.out == (
        f"infra  ok  {infra}  Runs the containers. MCP: portainer. Stack: Docker\n"
    )
    assert world.run("list", "--long") == 0
    first, *rest = world.out.splitlines()
    assert first == f"infra  ok      {infra}"
    assert "Runs the containers." in rest[0]
    assert world.out.count("Docker") == world.out.count("portainer") == 1
    assert any("allowed: Bash(git log:*,git diff:*), Read" in line for line in rest)
    world.run("update", "infra", "--description", "Runs things")
    world.run("list", "--long")
    assert "mcp: portainer; stacks: Docker" in world.out


def test_the_list_has_one_row_for_each_agent_sorted_and_fitted(world: World, infra: Path) -> None:
    for name in ("web", "db", "a-longer-name"):
        world.run("add", name, str(infra), "--description", f"{name} does much. " * 30)
    world.environ["COLUMNS"] = "80"
    world.run("list")
    rows = world.out.splitlines()
    assert [row.split()[0] for row in rows] == ["a-longer-name", "db", "web"]
    assert {len(row) for row in rows} == {80}
    assert all("does much." in row and row.endswith("...") for row in rows)
    world.terminal = True
    world.run("list")
    assert "~/projects/infra" in world.out


def test_names_are_aligned(world: World, infra: Path) -> None:
    for name in ("a", "a-longer-name"):
        world.run("add", name, str(infra))
    world.run("list")
    lines = [line for line in world.out.splitlines() if str(infra) in line]
    assert len({line.index(" ok ") for line in lines}) == 1


def test_a_missing_directory_is_listed_as_broken_with_its_problem(
    world: World, infra: Path
) -> None:
    world.write_config('[agents.gone]\ndirectory = "/nowhere/at/all"\n')
    assert world.run("list") == 0
    assert world.out.startswith("gone  broken  /nowhere/at/all  ")
    assert "does not exist" in world.out
    assert world.run("list", "--long") == 0
    assert world.out.startswith("gone  broken  /nowhere/at/all\n")
    assert "problem: " in world.out


def test_a_broken_table_leaves_the_other_agents_listed(world: World, infra: Path) -> None:
    world.write_config(f'[agents.bad]\ndirectory = 5\n[agents.infra]\ndirectory = "{infra}"\n')
    assert world.run("list") == 0
    assert "bad    broken" in world.out
    assert "infra  ok" in world.out


def test_a_config_that_does_not_parse_is_an_error_with_its_line(world: World) -> None:
    world.write_config("[agents.infra\n")
    for argv in (["list"], ["describe", "infra"], ["remove", "infra"]):
        assert world.run(*argv) == 1
        assert "line 1" in world.err
    assert world.config.read_text() == "[agents.infra\n"


def test_what_a_project_says_cannot_steer_the_terminal(world: World) -> None:
    world.terminal = True
    evil = world.project("evil", {"CLAUDE.md": "# E\n\nHarmless\x1b[2J\x1b]0;owned\x07 text\n"})
    world.run("add", "evil", str(evil))
    for argv in (["list"], ["describe", "evil"]):
        world.run(*argv)
        assert "\x1b[2J" not in world.out
        assert "\x1b]" not in world.out


def test_describe_shows_the_three_states_of_tools(world: World, infra: Path) -> None:
    world.write_config(
        "[settings]\n"
        'default_disallowed_tools = ["Write"]\n'
        "[agents.own]\n"
        f'directory = "{infra}"\nallowed_tools = ["Read"]\ndisallowed_tools = []\n'
        "[agents.bare]\n"
        f'directory = "{infra}"\n'
    )
    assert world.run("describe", "own") == 0
    assert "allowed tools     Read\n" in world.out
    assert "disallowed tools  none" in world.out
    assert world.run("describe", "bare") == 0
    assert "  allowed tools     inherit (the project's own settings)\n" in world.out
    assert "disallowed tools  inherit: Write (from the settings)\n" in world.out


def test_describe_tells_what_takes_effect_and_where_it_comes_from(
    world: World, infra: Path
) -> None:
    world.write_config(
        '[settings]\ndefault_timeout = 77\ndefault_model = "haiku"\n'
        f'[agents.infra]\ndirectory = "{infra}"\nmax_budget_usd = 1.5\n'
    )
    world.run("describe", "infra")
    assert "timeout           77 s (from the settings)" in world.out
    assert "model             haiku (from the settings)" in world.out
    assert "max budget        $1.5 a run\n" in world.out
    assert "project files     CLAUDE.md, .mcp.json" in world.out
    assert "mcp servers       portainer" in world.out


def test_describe_with_json_is_what_inspect_agent_answers(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra))
    assert world.run("describe", "infra", "--json") == 0
    details = world.answer()
    assert details["timeout"] == 300
    assert "Runs the containers." in details["claude_md_preview"]


def test_an_unknown_agent_is_an_error_that_names_the_others(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra))
    for argv in (["describe", "nope"], ["remove", "nope"], ["update", "nope", "--timeout=5"]):
        assert world.run(*argv) == 1
        assert world.err == (
            "error: Unknown agent: 'nope'. Available: infra\ntip: agent-dispatch list\n"
        )
    assert world.run("describe", "infa") == 1
    assert world.err.startswith("error: Unknown agent: 'infa'. Did you mean infra?")


def test_update_tells_what_changed_and_clears_with_none(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra), "--model", "opus", "--max-budget-usd", "2")
    assert world.run("update", "infra", "--model", "none", "--max-budget-usd", "-1") == 0
    assert world.out == "Updated infra: model, max_budget_usd\n"
    assert world.run("update", "infra") == 0
    assert world.out.startswith("Unchanged infra")


def test_the_effort_is_set_shown_and_cleared(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra))
    assert world.run("update", "infra", "--effort", "high") == 0
    assert world.out == "Updated infra: effort\n"
    world.run("describe", "infra")
    assert "  effort            high\n" in world.out
    world.run("describe", "infra", "--json")
    assert world.answer()["effort"] == "high"
    assert world.run("update", "infra", "--effort", "none") == 0
    world.run("describe", "infra")
    assert "  effort  " not in world.out


def test_describe_shows_what_the_agents_table_says(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra))
    config = world.config
    config.write_text(
        f"{config.read_text()}tools = []\nenv_deny = ['AWS_*']\nnested = false\n"
        f"exclusive = true\ncapabilities = ['sql']\ninstructions = '{'x' * 300}'\n"
    )
    world.run("describe", "infra")
    for line in (
        "  tools             none\n",
        "  env deny          AWS_*\n",
        "  capabilities      sql\n",
        f"  instructions      {'x' * 200}…\n",
        "  exclusive         one run at a time on this machine\n",
        "  nested            no (this server is not started in it)\n",
    ):
        assert line in world.out
    assert "env allow" not in world.out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--permission-mode", "acceptedits", "Did you mean acceptEdits? It takes: "),
        ("--permission-mode", "yolo", "acceptEdits, auto, bypassPermissions, "),
        ("--timeout", "1000000", "must be from 1 to 86400"),
        ("--timeout", "0.5", "must be from 1 to 86400"),
        ("--timeout", "nan", "must be from 1 to 86400"),
        ("--timeout", "soon", "--timeout"),
        ("--max-budget-usd", "inf", "must be from 0 to 1000000"),
    ],
)
def test_a_value_that_no_agent_can_have_is_refused_and_nothing_is_saved(
    world: World, infra: Path, option: str, value: str, said: str
) -> None:
    assert world.run("add", "infra", str(infra), option, value) == 2
    assert not world.config.exists()
    line, tip = world.err.splitlines()
    assert said in line
    assert len(line) <= 200
    assert tip == "tip: agent-dispatch add --help"
    world.run("add", "infra", str(infra))
    before = world.config.read_bytes()
    assert world.run("update", "infra", option, value, "--json") == 2
    assert said in world.answer()["error"]
    assert world.config.read_bytes() == before


def test_remove_forgets_the_agent_and_leaves_its_directory(world: World, infra: Path) -> None:
    world.run("add", "infra", str(infra))
    assert world.run("remove", "infra", "--json") == 0
    change = world.answer()
    assert change["action"] == "removed"
    assert infra.exists()


def test_import_takes_agents_over_and_fails_for_what_it_cannot_use(
    world: World, infra: Path
) -> None:
    source = world.home / "agents.yaml"
    source.write_text(f"agents:\n  infra:\n    directory: {infra}\n  bad:\n    directory: 5\n")
    assert world.run("import", str(source)) == 1
    assert "Added: infra\n" in world.out
    error, tip = world.err.splitlines()
    assert error.startswith("error: bad: ")
    assert tip == f"tip: agent-dispatch import {source}"
    assert world.run("import", str(source), "--json") == 1
    assert world.answer().keys() == {"error", "tips"}
    source.write_text(f"agents:\n  infra:\n    directory: {infra}\n")
    assert world.run("import", str(source)) == 0
    assert "skipped infra: " in world.err
    assert world.run("import", str(source), "--overwrite", "--json") == 0
    report = world.answer()
    assert report["replaced"] == ["infra"]


def test_import_names_each_key_that_it_leaves_out(world: World, infra: Path) -> None:
    source = world.home / "agents.yaml"
    text = (
        f"agents: {{infra: {{directory: {infra}, colour: red}}}}\nsettings: {{usage_log: true}}\n"
    )
    source.write_text(text)
    assert world.run("import", str(source)) == 0
    assert "left out agents.infra.colour: " in world.err
    assert "left out settings.usage_log: " in world.err
    assert source.read_text() == text


@pytest.mark.parametrize("command", ["list", "init", "doctor"])
def test_agents_of_the_predecessor_are_mentioned_until_they_are_imported(
    world: World, infra: Path, command: str
) -> None:
    world.install_claude()
    world.write_config("")
    source = world.config.with_name("agents.yaml")
    source.write_text(f"agents:\n  infra:\n    directory: {infra}\n  db:\n    directory: {infra}\n")
    world.run(command)
    said = world.out + world.err
    assert "infra, db" in said
    assert f"agent-dispatch import {source}" in said
    world.run("import", str(source))
    world.run(command)
    assert str(source) not in world.out + world.err


def test_a_broken_file_of_the_predecessor_is_told_and_hides_nothing(
    world: World, infra: Path
) -> None:
    world.run("add", "infra", str(infra))
    world.config.with_name("agents.yaml").write_text("agents: [")
    assert world.run("list") == 0
    assert world.out.startswith("infra  ok")
    assert "is not valid YAML" in world.err
    world.run("doctor")
    assert "warn  agents.yaml: " in world.out
