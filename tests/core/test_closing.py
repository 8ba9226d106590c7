"""What counts as the last word of a dialogue, and what as an answer."""

import pytest

from agent_dispatch.core.dialogue.closing import is_courtesy, without_marker
from tests.core.test_dialogue import result


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        ("Applied. [RESOLVED] ✅", "Applied."),
        ("Applied. [RESOLVED]✅🎉", "Applied."),
        ("Applied. [RESOLVED]!", "Applied."),
        ("Applied. [RESOLVED]!!!", "Applied."),
        ("Applied. [RESOLVED]…", "Applied."),
        ("Applied. [RESOLVED],", "Applied."),
        ("Applied. [RESOLVED]?", "Applied."),
        ("Applied. [RESOLVED]\uff1f", "Applied."),
        ("Are we [RESOLVED]?!", "Are we"),
        ("Applied. [RESOLVED] :-)", "Applied."),
        ("Applied. [RESOLVED] 👍🏽", "Applied."),
        ("Applied. [RESOLVED] ❤️", "Applied."),
        ("Applied. [RESOLVED] 👩\u200d🚀 🇩🇪", "Applied."),
        ("Applied. [RESOLVED] \U0001fae9", "Applied."),
        ("Applied.\n\n**[RESOLVED]** ✅", "Applied."),
        ("Applied.\n\n**[RESOLVED] ✅**", "Applied."),
        ("**Applied. [RESOLVED]!**", "**Applied.**"),
        ("Applied.\n\n[RESOLVED]\n\n✅", "Applied."),
        ("Applied.\n\n[RESOLVED]\n\n---", "Applied."),
        ("Applied ✅[RESOLVED]", "Applied ✅"),
        ("Applied… [RESOLVED]", "Applied…"),
        ("Applied…[RESOLVED]", "Applied…"),
        ("完成了[RESOLVED]\uff01", "完成了"),
        (
            "It was not applied before. Now it is. [RESOLVED]",
            "It was not applied before. Now it is.",
        ),
        ("There is nothing left to do!\n[RESOLVED]", "There is nothing left to do!"),
        ("- no errors left\n- [RESOLVED]", "- no errors left\n-"),
        ('He said "it is not." [RESOLVED]', 'He said "it is not."'),
        ("不是这样。[RESOLVED]", "不是这样。"),
        ("Nothing was lost.[RESOLVED]", "Nothing was lost."),
        ("Noted: the notes are in place [RESOLVED]", "Noted: the notes are in place"),
    ],
)
def test_punctuation_and_emoji_behind_the_marker_do_not_count(message: str, rest: str) -> None:
    assert without_marker(message) == rest


@pytest.mark.parametrize(
    "message",
    [
        "This is not [RESOLVED]",
        "This is not [RESOLVED].",
        "This is NOT [RESOLVED] ✅",
        "Applied. But this is not yet **[RESOLVED]**",
        "This isn't [RESOLVED]",
        "This isn\u2019t [RESOLVED]!",
        "This isnt [RESOLVED]",
        "I cannot call it [RESOLVED]",
        "I would never say [RESOLVED]",
        "No, v1.2 does not make it [RESOLVED]",
        "Das ist noch nicht [RESOLVED]",
        "Ce n'est pas [RESOLVED]",
        "Isso não está [RESOLVED]",
        "还没有[RESOLVED]",
        'The word is "[RESOLVED]" ✅',
        "The word is `[RESOLVED]` ✅",
        "[RESOLVED] ✅ or so",
        "[RESOLVED]✅\n\nWait.",
        "~~[RESOLVED]~~",
        "/[RESOLVED]/",
    ],
)
def test_a_negated_or_quoted_marker_does_not_resolve(message: str) -> None:
    assert without_marker(message) is None


@pytest.mark.parametrize(
    "message",
    [
        "Thanks!",
        "Thanks, db!",
        "Thank you so much for your help! 🙏",
        "**Perfect**, thank you.",
        "Great, that answers my question. Thanks!",
        "You\u2019re welcome!",
        "Understood, thanks. Have a good day!",
        "OK.",
        "Vielen Dank!",
        "Merci beaucoup !",
        "谢谢\uff01",
        "\U0001f44d",
    ],
)
def test_thanks_alone_are_a_courtesy(message: str) -> None:
    assert is_courtesy(message, ["db", "backend"])
    answer = result("Use port 5432.", f"{message} [RESOLVED]")
    assert (answer.resolved, answer.final_answer) == (True, "Use port 5432.")


@pytest.mark.parametrize(
    "message",
    [
        "Applied.",
        "Yes.",
        "No.",
        "Done.",
        "Confirmed.",
        "It works.",
        "Thanks, I set the port to 5432.",
        "Thanks! Use staging.",
        "Great: 42",
        "{}",
        "Thanks. " * 100,
        "",
    ],
)
def test_a_message_with_content_is_not_a_courtesy(message: str) -> None:
    assert not is_courtesy(message, ["db", "backend"])


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        (("It is done.", "Thanks. [RESOLVED]"), "It is done."),
        (("It is done.", "Great, thanks!", "You are welcome! [RESOLVED]"), "It is done."),
        (
            ("Which?", "Staging", "Thanks, staging is migrated. [RESOLVED]"),
            "Thanks, staging is migrated.",
        ),
        (("", "Thanks! [RESOLVED]"), "Thanks!"),
        (("Thanks! [RESOLVED]",), "Thanks!"),
    ],
)
def test_a_courtesy_leaves_the_answer_to_the_last_message_that_says_something(
    messages: tuple[str, ...], answer: str
) -> None:
    dialogue = result(*messages)
    assert (dialogue.resolved, dialogue.final_answer) == (True, answer)
