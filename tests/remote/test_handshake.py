import pytest

from agent_dispatch.remote.frames import Hello
from agent_dispatch.remote.handshake import Greeting, common_protocol, greeting


@pytest.mark.parametrize("noise", [b"", b"Welcome!", b"Welcome!\n", b"ADR1 other {}\n", b"\xff\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_greeting_is_found_after_noise(noise: bytes, size: int) -> None:
    hello = Hello(version="1.2.3", host_id="h")
    data = noise + greeting("abc", hello) + b"rest"
    found = Greeting("abc")
    for start in range(0, len(data), size):
        found.feed(data[start : start + size])
    assert (found.hello, found.rest) == (hello, b"rest")


def test_endless_noise_is_not_a_greeting() -> None:
    found = Greeting("abc")
    for _ in range(32):
        found.feed(b"y\n" * 1000)
        assert not found.is_over
    found.feed(b"y\n" * 1000)
    assert found.has_failed


@pytest.mark.parametrize("said", [b"{broken", b'{"version":"\xff"}', b'{"new":' + b"[" * 50_000])
def test_a_greeting_that_cannot_be_read_has_failed(said: bytes) -> None:
    found = Greeting("abc")
    found.feed(b"\nADR1 abc " + said + b"\n")
    assert found.has_failed
    assert found.noise == f"ADR1 abc {said.decode(errors='replace')}"


@pytest.mark.parametrize(
    ("proto", "oldest", "common"), [(1, 1, 1), (5, 1, 1), (5, 2, None), (0, 0, None)]
)
def test_versions_differ_as_long_as_they_share_a_protocol(
    proto: int, oldest: int, common: int | None
) -> None:
    assert common_protocol(Hello(proto=proto, oldest=oldest)) == common
