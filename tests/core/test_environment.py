import pytest

from agent_dispatch.core.environment import inherited

HAVE = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LC_ALL": "C",
    "HTTPS_PROXY": "http://proxy",
    "ANTHROPIC_API_KEY": "k",
    "CLAUDE_CODE_OAUTH_TOKEN": "t",
    "CLAUDE_CONFIG_DIR": "/c",
    "IS_SANDBOX": "1",
    "TRACEPARENT": "00-1-2-01",
    "TRACESTATE": "a=b",
}
SECRETS = {"GITHUB_TOKEN": "g", "AWS_SECRET_ACCESS_KEY": "a", "PGPASSWORD": "p"}
OURS = {"AGENT_DISPATCH_DEPTH": "1", "AGENT_DISPATCH_JOB": "j", "AGENT_DISPATCH_CONFIG": "/c"}


def names(**narrowed: tuple[str, ...]) -> set[str]:
    return set(inherited(HAVE | SECRETS | OURS, nested=False, **narrowed))


def test_without_a_list_everything_passes_a_trace_too() -> None:
    assert names() == {*HAVE, *SECRETS, *OURS}


@pytest.mark.parametrize(
    ("allow", "more"),
    [
        ((), set()),
        (("GITHUB_TOKEN",), {"GITHUB_TOKEN"}),
        (("github_token", "GITHUB"), set()),
        (("AWS_*",), {"AWS_SECRET_ACCESS_KEY"}),
        (("*PASS*",), {"PGPASSWORD"}),
        (("*",), set(SECRETS)),
        (("MISSING", "PGPASSWOR?"), set()),
    ],
)
def test_only_allowed_variables_and_those_claude_code_needs_are_inherited(
    allow: tuple[str, ...], more: set[str]
) -> None:
    assert names(allow=allow) == {*HAVE, *OURS, *more}


def test_denied_variables_are_never_inherited() -> None:
    kept = names(allow=("*",), deny=("AWS_*", "GITHUB_TOKEN", "ANTHROPIC_API_KEY"))
    assert kept == {*HAVE, "PGPASSWORD", *OURS} - {"ANTHROPIC_API_KEY"}


def test_no_list_removes_the_variables_that_nested_dispatches_need() -> None:
    assert names(allow=(), deny=("*",)) == set(OURS)


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("CLAUDE_CODE_USE_BEDROCK", "AWS_PROFILE"),
        ("CLAUDE_CODE_USE_VERTEX", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("CLAUDE_CODE_USE_FOUNDRY", "AZURE_CLIENT_ID"),
        ("CLAUDE_CODE_ENABLE_TELEMETRY", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_the_variables_of_a_provider_pass_where_it_is_used(switch: str, name: str) -> None:
    assert name not in inherited({name: "x"}, nested=False, allow=())
    assert name in inherited({name: "x", switch: "1"}, nested=False, allow=())


def test_a_callers_session_does_not_pass_even_if_it_is_allowed() -> None:
    assert "CLAUDECODE" not in inherited({"CLAUDECODE": "1"}, nested=False, allow=("*",))
