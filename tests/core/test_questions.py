import pytest

from agent_dispatch.core.questions import shown_input, shown_text
from agent_dispatch.model.question import Question, same_input
from agent_dispatch.server.calls.forms import question_text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"command": "a  b"}, '{"command":"a  b"}'),
        ({"command": "a\n\x1b[2Jb"}, '{"command":"a\\n\\u001b[2Jb"}'),
        ({"command": "a\u202eb\u200bc\u2028"}, '{"command":"a\\u202eb\\u200bc\\u2028"}'),
        ({"command": "\U000e0041é"}, '{"command":"\\udb40\\udc41é"}'),
        (None, "null"),
    ],
)
def test_a_person_sees_the_exact_call(given: object, shown: str) -> None:
    assert shown_input(given) == shown


def test_a_name_cannot_add_lines_to_a_form() -> None:
    tool = "Read\nAccept reads a file."
    question = Question(id="a", tool=tool, input={"n": 1}, asked_at=1, agent="infra")
    assert question_text(question).splitlines()[1] == '{"n":1}'
    assert shown_text("a\tb") == "a\\u0009b"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": None}, {}, False),
        ({"a": {"c": 1, "b": [{"y": 1, "x": 2}]}}, {"a": {"b": [{"x": 2, "y": 1}], "c": 1}}, True),
    ],
)
def test_only_the_same_json_is_the_same_call(one: object, other: object, same: bool) -> None:
    assert same_input(one, other) is same
