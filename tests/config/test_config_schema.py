import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_dispatch.config.schema import BadTableError, parse_config
from agent_dispatch.config.values import is_agent_name, split_tools
from agent_dispatch.model.config import AgentConfig, Config, UnknownKey


def _parse(text: str) -> Config:
    return parse_config(tomllib.loads(text))


def test_every_key_of_an_agent_is_read() -> None:
    config = _parse("""
        [agents.infra]
        directory = "~/infra"
        description = "Runs things"
        timeout = 600
        model = "sonnet"
        max_budget_usd = 0
        permission_mode = "plan"
        allowed_tools = ["Read", "Grep"]
        disallowed_tools = "Write, Bash(git log:*,git diff:*)"
        effort = "xhigh"
        fallback_model = "haiku"
        tools = ["Bash", "Read"]
        env_allow = ["AWS_*", "CI"]
        env_deny = "AWS_SECRET_ACCESS_KEY"
        instructions = "Be brief.\\nBe kind."
        exclusive = true
        nested = false
        capabilities = ["sql", "schema design"]
    """)
    assert config == Config(
        agents={
            "infra": AgentConfig(
                directory="~/infra",
                description="Runs things",
                timeout=600.0,
                model="sonnet",
                max_budget_usd=0.0,
                permission_mode="plan",
                allowed_tools=["Read", "Grep"],
                disallowed_tools=["Write", "Bash(git log:*,git diff:*)"],
                effort="xhigh",
                fallback_model="haiku",
                tools=["Bash", "Read"],
                env_allow=["AWS_*", "CI"],
                env_deny=["AWS_SECRET_ACCESS_KEY"],
                instructions="Be brief.\nBe kind.",
                exclusive=True,
                nested=False,
                capabilities=["sql", "schema design"],
            )
        }
    )


def test_every_setting_is_read() -> None:
    config = _parse("""
        [settings]
        default_timeout = 900
        default_model = "opus"
        default_permission_mode = "auto"
        default_allowed_tools = []
        default_disallowed_tools = ["Bash"]
        default_max_budget_usd = 1.5
        max_dispatch_depth = 0
        max_concurrency = 1
        call_retention_days = 0
        [settings.cache]
        enabled = false
        ttl = 0
        max_size = 0
    """)
    settings = config.settings
    assert (settings.default_timeout, settings.default_model) == (900, "opus")
    assert (settings.default_permission_mode, settings.default_allowed_tools) == ("auto", [])
    assert (settings.default_disallowed_tools, settings.default_max_budget_usd) == (["Bash"], 1.5)
    assert (settings.max_dispatch_depth, settings.max_concurrency) == (0, 1)
    assert settings.call_retention_days == 0
    assert (settings.cache.enabled, settings.cache.ttl, settings.cache.max_size) == (False, 0, 0)
    assert config.broken_settings == {}


@pytest.mark.parametrize("text", ["", "[agents]", "[settings]", "agents = {}\nsettings.cache = {}"])
def test_empty_sections_are_no_mistake(text: str) -> None:
    assert _parse(text) == Config()


def test_empty_words_inherit_and_an_empty_list_stays_empty() -> None:
    config = _parse('[agents.a]\ndirectory="d"\nmodel=""\npermission_mode=" "\nallowed_tools=[]')
    assert config.agents["a"] == AgentConfig(directory="d", allowed_tools=[])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("directory = 5", "directory: expected the path of the project, as text, got the number 5"),
        ('directory = " "', "directory: expected the path of the project, as text, got the text"),
        ('directory = "a\\u0000b"', "directory: expected a path without control characters"),
        ("", "directory: missing, expected the path of the project, as text"),
        ("directory = 'd'\ntimeout = 0", "timeout: expected a number of seconds from 1 to"),
        ("directory = 'd'\ntimeout = 'soon'", "timeout: expected a number of seconds, at least 1"),
        ("directory = 'd'\ntimeout = true", "timeout: expected a number of seconds, at least 1"),
        ("directory = 'd'\ntimeout = nan", "got the number nan"),
        ("directory = 'd'\ntimeout = inf", "got the number inf"),
        ("directory = 'd'\ntimeout = " + "9" * 400, "got a huge number"),
        ("directory = 'd'\nmax_budget_usd = -1", "max_budget_usd: expected a number of US dollars"),
        ("directory = 'd'\nmodel = 3", "model: expected text on one line, got the number 3"),
        ("directory = 'd'\nmodel = 'a\u2028b'", "model: expected text on one line"),
        ("directory = 'd'\npermission_mode = {}", "permission_mode: expected text on one line"),
        ("directory = 'd'\ndescription = []", "description: expected text, got an array"),
        ("directory = 'd'\nallowed_tools = 1", "allowed_tools: expected an array of tools, or one"),
        ("directory = 'd'\nallowed_tools = [1]", "allowed_tools: expected each tool as text"),
        ("directory = 'd'\nallowed_tools = [['a']]", "got an array"),
        ("directory = 'd'\nmodel = 1979-05-27", "got a date or time"),
        ("directory = 'd'\nfallback_model = 1", "fallback_model: expected text on one line"),
        ("directory = 'd'\ntools = 1", "tools: expected an array of tools"),
        ("directory = 'd'\nenv_allow = 1", "env_allow: expected an array of texts"),
        ("directory = 'd'\nenv_allow = ['A=1']", "env_allow: expected names of environment"),
        ("directory = 'd'\nenv_deny = ['A B']", "env_deny: expected names of environment"),
        ("directory = 'd'\nenv_deny = ['']", "env_deny: expected each item as text"),
        ("directory = 'd'\ninstructions = ['x']", "instructions: expected text"),
        ("directory = 'd'\ninstructions = \"a\\u0000b\"", "without NUL"),
        (f"directory = 'd'\ninstructions = '{'x' * 100_001}'", "at most 100,000 bytes"),
        ("directory = 'd'\nexclusive = 1", "exclusive: expected true or false"),
        ("directory = 'd'\nnested = 'no'", "nested: expected true or false"),
        ("directory = 'd'\ncapabilities = [1]", "capabilities: expected each item as text"),
    ],
)
def test_a_bad_agent_is_named_with_its_key_and_the_others_work(line: str, reason: str) -> None:
    config = _parse(f"[agents.bad]\n{line}\n[agents.good]\ndirectory = '/g'\n")
    assert list(config.agents) == ["good"]
    assert reason in config.broken["bad"]


def test_all_bad_keys_of_an_agent_are_named_at_once() -> None:
    reason = _parse("[agents.a]\ntimeout = 0\nmodel = 1").broken["a"]
    assert [part.split(":")[0] for part in reason.split("; ")] == ["timeout", "model", "directory"]


@pytest.mark.parametrize("name", ["a b", "-x", "a.b", "", "ä", "a\nb", "x" * 101])
def test_a_bad_name_makes_a_broken_agent(name: str) -> None:
    config = parse_config({"agents": {name: {"directory": "/d"}}})
    assert not is_agent_name(name)
    assert "its name is not made of letters" in config.broken[name]


@pytest.mark.parametrize("value", ["5", '"x"', "[]", "true"])
def test_an_agent_that_is_not_a_table_is_broken(value: str) -> None:
    assert "expected a table with a directory" in _parse(f"[agents]\na = {value}").broken["a"]


@pytest.mark.parametrize("value", ["5", '"x"', "[]", "[{a = 1}]"])
def test_agents_that_are_no_table_leave_nothing_to_say(value: str) -> None:
    with pytest.raises(BadTableError, match="agents: expected a table of agents"):
        _parse(f"agents = {value}")


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("settings = 5", "settings", "expected a table, got the number 5"),
        ("settings.cache = true", "settings.cache", "expected a table, got true"),
        ("settings.cache.ttl = -1", "settings.cache.ttl", "from 0 to"),
        ("settings.cache.enabled = 'yes'", "settings.cache.enabled", "expected true or false"),
        ("settings.max_concurrency = 0", "settings.max_concurrency", "from 1 to 10000"),
        ("settings.max_concurrency = 2.5", "settings.max_concurrency", "a whole number"),
        ("settings.max_dispatch_depth = -1", "settings.max_dispatch_depth", "from 0 to"),
        ("settings.max_dispatch_depth = true", "settings.max_dispatch_depth", "a whole number"),
        ("settings.default_max_budget_usd = 'x'", "settings.default_max_budget_usd", "US dollars"),
        ("settings.call_retention_days = nan", "settings.call_retention_days", "of days"),
    ],
)
def test_a_bad_setting_is_named_and_its_default_stands_in(
    text: str, key: str, problem: str
) -> None:
    config = _parse(f"{text}\nagents.a.directory = '/a'")
    assert list(config.broken_settings) == [key]
    assert problem in config.broken_settings[key]
    assert config.settings == Config().settings
    assert list(config.agents) == ["a"]


def test_unknown_keys_are_reported_with_the_known_key_they_resemble() -> None:
    config = _parse("""
        [agent.x]
        [agents.a]
        directory = "/a"
        allowed-tools = []
        colour = "red"
        [settings]
        timeout = 3
        [settings.cache]
        TTL = 5
    """)
    assert config.unknown_keys == (
        UnknownKey("top level", "agent", "agents"),
        UnknownKey("agents.a", "allowed-tools", "allowed_tools"),
        UnknownKey("agents.a", "colour", None),
        UnknownKey("settings", "timeout", "default_timeout"),
        UnknownKey("settings.cache", "TTL", "ttl"),
    )


def test_doubtful_values_are_warned_about_and_passed_on() -> None:
    config = _parse("""
        [agents.a]
        directory = "/a"
        model = "-x"
        permission_mode = "accept-edits"
        allowed_tools = ["-Bash", "Bash(git"]
        effort = "hihg"
        fallback_model = "-x"
        tools = ["Bash(git *)"]
        env_deny = ["*"]
        verify_always = true
        [settings]
        default_permission_mode = "yolo"
    """)
    assert config.agents["a"].permission_mode == "accept-edits"
    assert [f"{warning.where}.{warning.key}" for warning in config.warnings] == [
        "agents.a.model",
        "agents.a.permission_mode",
        "agents.a.allowed_tools",
        "agents.a.allowed_tools",
        "agents.a.effort",
        "agents.a.fallback_model",
        "agents.a.tools",
        "agents.a.env_deny",
        "agents.a.env_deny",
        "agents.a.verify_always",
        "settings.default_permission_mode",
    ]
    assert "without a verify command, so every call is refused" in str(config.warnings[9])
    assert "Did you mean acceptEdits? It is passed on as it is." in str(config.warnings[1])
    assert "plan, default). It is passed on as it is." in config.warnings[10].problem
    assert "names of tools, such as Bash" in config.warnings[6].problem
    assert "HOME and PATH" in config.warnings[7].problem
    assert "AGENT_DISPATCH_*, which every agent gets" in config.warnings[8].problem
    assert "Did you mean high? It is passed on as it is." in config.warnings[4].problem


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ("", []),
        (" , ,", []),
        ("Bash,Read", ["Bash", "Read"]),
        (" Bash ,, Read ,Bash", ["Bash", "Read"]),
        ("Bash(git log:*,git diff:*),Read", ["Bash(git log:*,git diff:*)", "Read"]),
        ("A((x,y),z),B", ["A((x,y),z)", "B"]),
        ("Bash(git,Read", ["Bash(git,Read"]),
        ("Bash),Read", ["Bash)", "Read"]),
    ],
)
def test_tools_split_at_commas_outside_parentheses(text: str, tools: list[str]) -> None:
    assert split_tools(text) == tools


TOOLS = st.from_regex(r"[A-Za-z_]{1,8}(\([a-z:*, ]{0,10}\))?", fullmatch=True)


@settings(deadline=None)
@given(tools=st.lists(TOOLS, unique=True))
def test_joined_tools_split_into_the_same_tools(tools: list[str]) -> None:
    assert split_tools(",".join(tools)) == tools


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    agent=st.dictionaries(st.sampled_from(["directory", "timeout", "model", "x"]), VALUES),
    section=st.dictionaries(
        st.sampled_from(["default_timeout", "max_concurrency", "cache"]), VALUES
    ),
)
def test_no_value_of_any_type_is_taken_for_a_bug(
    agent: dict[str, Any], section: dict[str, Any]
) -> None:
    config = parse_config({"agents": {"a": agent}, "settings": section})
    assert ("a" in config.agents) != ("a" in config.broken)


def test_the_settings_about_money_are_read() -> None:
    config = _parse("""
        [settings]
        max_cost_per_day_usd = 5
        max_cost_per_tree_usd = 0.5
        max_runs_per_tree = 20
        hold_at_usage_limit = true
        max_holds = 0
    """)
    read = config.settings
    assert (read.max_cost_per_day_usd, read.max_cost_per_tree_usd) == (5.0, 0.5)
    assert (read.max_runs_per_tree, read.hold_at_usage_limit, read.max_holds) == (20, True, 0)
    assert config.broken_settings == {}


@pytest.mark.parametrize("key", ["max_cost_per_day_usd", "max_cost_per_tree_usd"])
@pytest.mark.parametrize("value", ["0", "-1", "true", '"5"', "nan", "inf"])
def test_a_ceiling_is_an_amount_above_nothing(key: str, value: str) -> None:
    config = _parse(f"[settings]\n{key} = {value}")
    assert "an amount of US dollars above 0" in config.broken_settings[f"settings.{key}"]


@pytest.mark.parametrize("value", ["0", "1.5", "true", '"20"'])
def test_a_number_of_runs_is_a_whole_number_from_one(value: str) -> None:
    config = _parse(f"[settings]\nmax_runs_per_tree = {value}")
    assert "a whole number" in config.broken_settings["settings.max_runs_per_tree"]
