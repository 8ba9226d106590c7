import msgspec
import pytest

from agent_dispatch.core.cache import MAX_KEPT_CHARS, Cache, is_clean, request_key
from agent_dispatch.model.config import CacheSettings
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, Evidence
from tests.core.builders import agent

READ = Evidence(tool_calls=1, tools={"Read": 1}, read_only=True)
ANSWER = DispatchResult(
    agent="infra", success=True, result="fine", job_id="1" * 32, cost_usd=0.5, evidence=READ
)
SETTINGS = CacheSettings(ttl=300, max_size=3)


def request(**changes: object) -> DispatchRequest:
    return msgspec.structs.replace(DispatchRequest(agent="infra", task="look"), **changes)


def put(cache: Cache, key: bytes, result: DispatchResult, now: float) -> None:
    cache.put(key, result, now, SETTINGS, ended_at=1_700_000_000.9)


def key(number: int) -> bytes:
    return b"key %d" % number


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "look again"},
        {"context": "c"},
        {"caller": "c"},
        {"goal": "c"},
        {"response_format": "json"},
        {"json_schema": "{}"},
        {"agent": "db"},
        {"group": "shop"},
        {"model": "opus"},
        {"effort": "high"},
    ],
)
def test_another_question_is_another_key(changes: dict[str, object]) -> None:
    assert request_key(request(**changes), agent()) != request_key(request(), agent())


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "opus"},
        {"directory": "/elsewhere"},
        {"allowed_tools": ()},
        {"permission_mode": "plan"},
        {"max_budget_usd": 2.0},
        {"effort": "high"},
    ],
)
def test_an_agent_that_is_configured_otherwise_is_another_key(changes: dict[str, object]) -> None:
    changed = msgspec.structs.replace(agent(), **changes)
    assert request_key(request(), changed) != request_key(request(), agent())


def test_a_group_whose_shared_context_changed_is_another_key() -> None:
    in_shop = request(group="shop")
    assert request_key(in_shop, agent(), "one") != request_key(in_shop, agent(), "other")


def test_text_does_not_move_from_one_field_to_the_next() -> None:
    one, other = request(task="ab", context="c"), request(task="a", context="bc")
    assert request_key(one, agent()) != request_key(other, agent())


def test_the_timeout_is_not_part_of_the_key() -> None:
    assert request_key(request(timeout_s=10), agent()) == request_key(request(), agent())


@pytest.mark.parametrize(
    ("changes", "clean"),
    [
        ({}, True),
        ({"result": ""}, True),
        ({"earlier_results": ["before"]}, True),
        ({"success": False, "error": "no"}, False),
        ({"denied_tools": ["Bash"], "hint": "denied"}, False),
        ({"left_running": 1, "hint": "left"}, False),
        ({"evidence": Evidence(tool_calls=0, read_only=True)}, True),
        ({"evidence": Evidence(tool_calls=1, tools={"Bash": 1}, read_only=False)}, False),
        ({"evidence": None}, False),
        ({"verified": True}, False),
    ],
)
def test_only_a_clean_answer_of_a_run_that_only_read_is_kept(
    changes: dict[str, object], clean: bool
) -> None:
    assert is_clean(msgspec.structs.replace(ANSWER, **changes)) is clean


def test_an_answer_is_given_again_until_it_is_too_old() -> None:
    cache = Cache()
    assert cache.get(key(1), 0, SETTINGS) is None
    put(cache, key(1), ANSWER, 0)
    again = cache.get(key(1), 299.9, SETTINGS)
    assert again == msgspec.structs.replace(
        ANSWER, cached=True, cached_at="2023-11-14T22:13:20Z", cost_usd=0
    )
    assert cache.get(key(1), 300, SETTINGS) is None
    stats = cache.stats(300, SETTINGS)
    assert (stats.hits, stats.misses, stats.size) == (1, 2, 0)
    assert stats.hit_rate == pytest.approx(1 / 3)


def test_a_new_cache_has_no_hits_and_misses() -> None:
    assert Cache().stats(0, SETTINGS).hit_rate == 0.0


def test_the_oldest_answers_leave_first() -> None:
    cache = Cache()
    for number in range(5):
        put(cache, key(number), ANSWER, number)
    kept = [number for number in range(5) if cache.get(key(number), 5, SETTINGS)]
    assert kept == [2, 3, 4]


def test_a_new_answer_takes_the_place_and_the_age_of_the_old_one() -> None:
    cache = Cache()
    put(cache, key(1), ANSWER, 0)
    put(cache, key(2), ANSWER, 10)
    put(cache, key(1), msgspec.structs.replace(ANSWER, result="newer"), 200)
    newer = cache.get(key(1), 450, SETTINGS)
    assert newer is not None
    assert newer.result == "newer"
    assert cache.get(key(2), 450, SETTINGS) is None


def test_a_failure_takes_an_old_answer_away() -> None:
    cache = Cache()
    put(cache, key(1), ANSWER, 0)
    put(cache, key(1), msgspec.structs.replace(ANSWER, success=False), 1)
    assert cache.get(key(1), 2, SETTINGS) is None


def test_settings_are_those_of_the_moment() -> None:
    cache = Cache()
    for number in range(3):
        put(cache, key(number), ANSWER, 0)
    assert cache.stats(1, CacheSettings(ttl=300, max_size=1)).size == 1
    assert cache.stats(1, CacheSettings(ttl=0.5, max_size=1)).size == 0


def test_large_answers_leave_sooner() -> None:
    cache = Cache()
    large = msgspec.structs.replace(ANSWER, result="x" * (MAX_KEPT_CHARS // 2))
    for number in range(3):
        put(cache, key(number), large, number)
    assert [n for n in range(3) if cache.get(key(n), 3, SETTINGS)] == [1, 2]


def test_an_answer_that_is_too_large_evicts_no_other() -> None:
    cache = Cache()
    put(cache, key(1), ANSWER, 0)
    large = msgspec.structs.replace(ANSWER, result="x" * (MAX_KEPT_CHARS + 1))
    put(cache, key(2), large, 0)
    assert [n for n in (1, 2) if cache.get(key(n), 0, SETTINGS)] == [1]


def test_clearing_forgets_everything_but_the_counts() -> None:
    cache = Cache()
    put(cache, key(1), ANSWER, 0)
    assert cache.get(key(1), 1, SETTINGS)
    assert cache.clear() == 1
    assert cache.clear() == 0
    assert cache.get(key(1), 1, SETTINGS) is None
    stats = cache.stats(1, SETTINGS)
    assert (stats.hits, stats.misses, stats.size) == (1, 1, 0)
