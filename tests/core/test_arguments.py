from typing import Annotated, Any

import msgspec
import pytest

from agent_dispatch.core.request.arguments import ArgumentDecoder
from agent_dispatch.errors import InvalidRequestError


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    agent: Annotated[str, msgspec.Meta(description="who")]
    task: str
    count: Annotated[int, msgspec.Meta(description="how many")] = 3
    budget: float = 0.5
    loud: bool = False
    label: str = ""
    items: Annotated[str | list[Any], msgspec.Meta(description="which")] = ""
    shape: dict[str, Any] | str = ""


def decode(**arguments: object) -> Params:
    return ArgumentDecoder("tool", Params).decode({"agent": "a", "task": "t", **arguments})


def refused(arguments: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        ArgumentDecoder("tool", Params).decode(arguments)
    return str(caught.value)


def test_defaults_are_filled_in() -> None:
    assert decode() == Params(agent="a", task="t")


def test_null_means_the_default_where_there_is_one() -> None:
    assert decode(count=None, label=None) == Params(agent="a", task="t")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("15", 15), (15.0, 15), ("15.0", 15), (-4, -4), (10**30, 10**30)],
)
def test_whole_numbers_are_taken_as_models_write_them(written: object, meant: int) -> None:
    assert decode(count=written).count == meant


@pytest.mark.parametrize(("written", "meant"), [("2.5", 2.5), (2, 2.0), ("1e3", 1000.0)])
def test_numbers_are_taken_as_models_write_them(written: object, meant: float) -> None:
    assert decode(budget=written).budget == meant


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("false", False), (1, True)])
def test_truth_is_taken_as_models_write_it(written: object, meant: bool) -> None:
    assert decode(loud=written).loud is meant


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Missing argument 'agent'; missing argument 'task'. tool takes: agent, task, count?"),
        (None, "Missing argument 'agent'"),
        ({"agent": None, "task": "t"}, "Missing argument 'agent'"),
        ("agent", "tool takes an object, got text 'agent'. tool takes: agent"),
        ([1], "takes an object, got a list"),
        ({"agent": "a", "task": "t", "items": 5}, "must be text or a list, got the number 5"),
        ({"agent": "a", "task": "t", "shape": [1]}, "must be an object or text, got a list"),
        ({"agent": "a", "tusk": "t"}, "Unknown argument 'tusk' (did you mean 'task'?)"),
        ({"agent": "a", "task": "t", "xyzzy": 1}, "Unknown argument 'xyzzy'. tool takes"),
        ({"agent": 5, "task": "t"}, "Argument 'agent' must be text, got the number 5"),
        ({"agent": {"n": 1}, "task": "t"}, "Argument 'agent' must be text, got an object"),
        ({"agent": ["a"], "task": "t"}, "Argument 'agent' must be text, got a list"),
        ({"agent": True, "task": "t"}, "Argument 'agent' must be text, got true"),
        ({"agent": "a", "task": "t", "count": 1.5}, "must be a whole number, got the number 1.5"),
        ({"agent": "a", "task": "t", "count": "many"}, "must be a whole number, got text 'many'"),
        ({"agent": "a", "task": "t", "count": float("nan")}, "whole number, got the number nan"),
        ({"agent": "a", "task": "t", "count": True}, "must be a whole number, got true"),
        ({"agent": "a", "task": "t", "budget": float("inf")}, "must be a finite number"),
        ({"agent": "a", "task": "t", "budget": "nan"}, "must be a finite number"),
        ({"agent": "a", "task": "t", "loud": "maybe"}, "must be true or false, got text 'maybe'"),
        ({"agent": "a", "task": "nul\0byte"}, "Argument 'task' contains a NUL character"),
        ({"agent": "a", "task": "sur\ud800"}, "Argument 'task' contains an unpaired surrogate"),
        ({"agent": {"\ud800": 1}, "task": "t"}, "'agent' contains an unpaired surrogate"),
        ({"agent": "a", "task": "t", "\ud800": 1}, "Unknown argument '\\ud800'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: object, said: str) -> None:
    assert said in refused(arguments)


def test_all_problems_are_reported_together() -> None:
    said = refused({"agent": 1, "count": "x", "tusk": ""})
    assert said.startswith("Unknown argument 'tusk' (did you mean 'task'?); argument 'agent'")
    assert "argument 'count' must be a whole number" in said
    assert "missing argument 'task'" in said


def test_a_long_value_is_shown_in_part() -> None:
    assert len(refused({"agent": "a", "task": "t", "count": "x" * 10_000})) < 250


def test_many_unknown_arguments_are_shown_in_part() -> None:
    said = refused({"agent": "a", "task": "t"} | {f"x{n}" * 1000: n for n in range(1000)})
    assert "995 more unknown arguments" in said
    assert len(said) < 800
