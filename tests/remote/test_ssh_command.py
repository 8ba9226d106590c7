import pytest

from agent_dispatch.model.config import HostConfig
from agent_dispatch.remote.caller.ssh import argv_to, probe, to_try_by_hand

NONCE = "0" * 32


@pytest.mark.parametrize("program", [None, "/opt/ad/bin/agent-dispatch"])
def test_the_probe_has_no_character_that_login_shells_treat_differently(
    program: str | None,
) -> None:
    script = probe(program, NONCE)
    assert not set(script) & set("'!\\\n`")
    assert script.endswith("echo ADR-MISSING; exit 127")
    assert f'exec "{program or "$d/agent-dispatch"}" _remote {NONCE}' in script


def test_a_program_of_the_configuration_replaces_the_search() -> None:
    assert "$HOME" not in probe("/opt/agent-dispatch", NONCE)


def test_ssh_gets_the_script_in_one_word_and_a_command_in_three() -> None:
    script = probe(None, NONCE)
    argv = argv_to(HostConfig(ssh="gpu"), script)
    assert argv[0] == "ssh"
    assert argv[-3:] == ["--", "gpu", f"exec sh -c '{script}'"]
    docker = HostConfig(exec=["docker", "exec", "-i", "dev"])
    assert argv_to(docker, script) == ["docker", "exec", "-i", "dev", "sh", "-c", script]


def test_ssh_forwards_nothing_and_a_retry_uses_no_shared_connection() -> None:
    first, retry = (argv_to(HostConfig(ssh="gpu"), "x", is_retry=again) for again in (False, True))
    for option in (
        "BatchMode=yes",
        "RemoteCommand=none",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "ConnectTimeout=10",
    ):
        assert option in first
    assert not [word for word in first if "StrictHostKeyChecking" in word]
    assert "ControlPath=none" not in first
    assert "ControlPath=none" in retry


def test_a_person_gets_a_command_to_try() -> None:
    assert to_try_by_hand(HostConfig(ssh="gpu")) == "ssh -T gpu 'echo it works'"
    by_hand = to_try_by_hand(HostConfig(exec=["docker", "exec", "-i", "dev"]))
    assert by_hand == "docker exec -i dev sh -c 'echo it works'"
