import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.jobs.errors import InvalidJobIdError
from agent_dispatch.jobs.ids import (
    IdSource,
    check_job_id,
    creation_time_s,
    is_time_ordered,
)


@given(st.lists(st.integers(min_value=0, max_value=2**63), min_size=2, max_size=50))
def test_ids_rise_whatever_the_clock_does(times: list[int]) -> None:
    ticking = iter(times)
    ids = IdSource(now_ns=lambda: next(ticking))
    made = [ids.next() for _ in times]
    assert made == sorted(set(made))
    assert all(len(one) == 32 for one in made)


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    job_id = IdSource(now_ns=lambda: 1_700_000_000_123_456_789).next()
    parsed = uuid.UUID(job_id)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert creation_time_s(job_id) == 1_700_000_000.123
    assert is_time_ordered(check_job_id(job_id))


def test_ids_of_several_threads_differ() -> None:
    ids = IdSource()
    made: list[str] = []

    def make() -> None:
        made.extend(ids.next() for _ in range(500))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


@given(st.uuids(version=4))
def test_a_random_id_is_not_taken_for_a_time(random: uuid.UUID) -> None:
    assert not is_time_ordered(random.hex)
    assert check_job_id(random.hex) == random.hex


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../../../etc/passwd",
        "0190b5f000007000800000000000000",
        "0190b5f00000700080000000000000011",
        "0190B5F0000070008000000000000001",
        "0190b5f0000070008000000000000001\n",
        "0190b5f000007000800000000000000/",
        "0190b5f0-0000-7000-8000-000000000001",
        "\N{ARABIC-INDIC DIGIT ONE}" * 32,
        "\0" * 32,
        "x" * 100_000,
    ],
)
def test_text_that_cannot_be_an_id_is_refused_and_quoted_briefly(text: str) -> None:
    with pytest.raises(InvalidJobIdError, match="32 hex digits") as caught:
        check_job_id(text)
    assert len(str(caught.value)) < 600
