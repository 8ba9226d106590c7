import pytest

from agent_dispatch.model.config import HostConfig
from agent_dispatch.remote.caller.diagnosis import Attempt, diagnose
from agent_dispatch.remote.frames import Hello

GPU = HostConfig(ssh="gpu")
INSTALL = "agent-dispatch hosts install gpu"
TRY = "ssh -T gpu 'echo it works'"


@pytest.mark.parametrize(
    ("attempt", "reason", "command"),
    [
        (Attempt(start_error="No such program"), "No such program.", TRY),
        (Attempt(hello=Hello(proto=9, version="9.1")), "protocol 9 (version 9.1)", INSTALL),
        (Attempt(noise="hi\nADR-MISSING", exit_code=127), "no agent-dispatch there", INSTALL),
        (Attempt(stderr="a\n\nb\nc\nd\n", exit_code=255), "b\nc\nd", TRY),
        (Attempt(timed_out=True), "did not greet within 15 s", TRY),
        (Attempt(noise="menu", exit_code=3), "status 3 without a greeting.\nIt said: menu", TRY),
    ],
)
def test_a_failure_says_why_and_what_to_do(attempt: Attempt, reason: str, command: str) -> None:
    failure = diagnose(attempt, "gpu", GPU, was_reached=False)
    assert reason in failure.reason
    assert [step.command for step in failure.steps] == [command]


@pytest.mark.parametrize(
    ("attempt", "at_first", "later"),
    [
        (Attempt(stderr="x: Permission denied (publickey).", exit_code=255), True, True),
        (Attempt(stderr="Could not resolve hostname x", exit_code=255), True, False),
        (Attempt(stderr="Connection refused", exit_code=255), False, False),
        (Attempt(stderr="Error: container dev is not running", exit_code=1), True, False),
        (Attempt(stderr="mux_client: closed", exit_code=1), False, False),
        (Attempt(exit_code=137), False, False),
        (Attempt(exit_code=-9), False, False),
        (Attempt(timed_out=True, exit_code=1), False, False),
    ],
)
def test_a_failure_that_may_pass_is_tried_again(
    attempt: Attempt, at_first: bool, later: bool
) -> None:
    finals = [
        diagnose(attempt, "gpu", GPU, was_reached=reached).is_final for reached in (False, True)
    ]
    assert finals == [at_first, later]
