"""Finds out whether a message closes a dialogue: its last word is the marker.

A message that has only thanks before the marker closes the dialogue, but is not its answer.
"""

import re
import unicodedata
from collections.abc import Iterable

from agent_dispatch.core.dialogue.prompt import MARKER

_BLANKS = " \t\n\r\f\v\u00a0\u200b\u2028\u2029\u2060\u3000\ufeff"
_FENCE = re.compile(r"(`{3,}|~{3,})([^\n]*)")
_QUOTED_LINE = re.compile(r" {0,3}>")
_OPENED = re.compile(r"[*_]{0,3}$")
_SMILEY = re.compile(r"[:;]-?\)")

_MAX_BEHIND = 100
"""Characters allowed after the marker: punctuation, emoji, a rule, blank lines."""
_MAX_SENTENCE = 2_000
_NOT_BEHIND = frozenset("\"'/\\@%&#")
"""Punctuation that makes the marker a quotation or a part of something else."""
_BEFORE = frozenset(
    "*_.!?:;,)]}-\u2013\u2014\u2026\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f"
)
_EMOJI_PARTS = frozenset("\u200d\u20e3\ufe0e\ufe0f")

_SENTENCE_END = re.compile(
    r"[.!?:;\u2026]+[*_)\]\"'\u2019\u201d]*(?=\s|$)|[\u3002\uff01\uff1f\uff1a\uff1b]"
)
# In the languages that agents are most often addressed in.
_NEGATION = re.compile(
    r"\b(?:not|no|never|nor|neither|none|nothing|cannot|hardly|barely"
    r"|(?:is|are|was|were|do|does|did|has|have|ca|wo)nt"
    r"|nicht|keine?[mnrs]?|nie|niemals|pas|jamais|aucune?|nunca|não|non|niet|geen|ikke|inte"
    r"|не|нет)\b"
    r"|n['\u2019]t\b"
    r"|[不未没沒]|ない|ません|않|아니",
    re.IGNORECASE,
)

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_MAX_COURTESY_CHARS = 300
_COURTESIES = """
thanks thank thx ty cheers appreciate appreciated welcome pleasure glad great perfect excellent
awesome wonderful brilliant fantastic amazing nice cool understood noted ok okay alright bye
goodbye sounds danke dank gerne merci gracias obrigado obrigada grazie bedankt tack tak
спасибо 谢谢 謝謝 谢谢你 感谢 多谢 不客气 好的 ありがとう ありがとうございます
ありがとうございました 감사합니다
"""
_FILLERS = """
a again all am and answer answered answers anytime are be been both can clear could day
discussion doing end everyone everything exactly explanation fast feedback for from good got
happy have help helped helpful helping helps here i i'd i'm information is issue it it's job
just kind kindly lot lots many me much my need needed now of on our patience problem prompt
question questions quick really reply resolved resolves response settled settles side so solved
solves support team that that's the then thorough this time to too topic us very was we we'll
we're well were what will wish with work working would wrap you you're your
bitte beaucoup für deine die hilfe ihre muchas mucho sehr vielen viel por tu ayuda
"""
_COURTESY_WORDS = frozenset(_COURTESIES.split())
_HARMLESS_WORDS = _COURTESY_WORDS | frozenset(_FILLERS.split())


def without_marker(message: str) -> str | None:
    """Return a message without the marker at its end; None if it does not end with the marker.

    Punctuation and emoji after the marker do not count. A marker in the middle, in a code block, in
    a quotation, or in a sentence with a negation only mentions it.
    """
    text = message.rstrip(_BLANKS)
    # Search only the end: a message may have many MiB.
    marker = text.rfind(MARKER, max(0, len(text) - _MAX_BEHIND - len(MARKER)))
    if marker < 0:
        return None
    behind = text[marker + len(MARKER) :]
    if not all(map(_may_be_behind, _SMILEY.sub("", behind))):
        return None
    line = text.rfind("\n", 0, marker) + 1
    opening = _OPENED.search(text, max(line, marker - 3), marker)
    before_end = marker if opening is None else opening.start()
    if before_end > line and not _may_be_before(text[before_end - 1]):
        return None
    if _QUOTED_LINE.match(text, line) or _ends_in_fence(text[:line]):
        return None
    if _NEGATION.search(_sentence(text[max(line, before_end - _MAX_SENTENCE) : before_end])):
        return None
    before = text[line:before_end].rstrip(_BLANKS)
    if before and before_end == marker:
        # The emphasis began before the marker.
        before += "".join(char for char in behind if char in "*_")
    return (text[:line] + before).rstrip(_BLANKS)


def is_courtesy(message: str, names: Iterable[str] = ()) -> bool:
    """Tell whether a message has only thanks, praise or an acknowledgement.

    Args:
        message: Without the marker.
        names: The names of the agents; addressing one by name adds nothing.
    """
    if len(message) > _MAX_COURTESY_CHARS:
        return False
    words = [word.replace("\u2019", "'") for word in _WORD.findall(message.lower())]
    if not words:
        # Only emoji count; other signs may be an answer, such as `{}`.
        return bool(message) and all(_is_emoji(char) or char in _BLANKS for char in message)
    called = {word for name in names for word in _WORD.findall(name.lower())}
    return any(word in _COURTESY_WORDS for word in words) and all(
        word in _HARMLESS_WORDS or word in called for word in words
    )


def _may_be_behind(char: str) -> bool:
    if char in _BLANKS or _is_emoji(char):
        return True
    return unicodedata.category(char) in ("Po", "Pd", "Pc") and char not in _NOT_BEHIND


def _may_be_before(char: str) -> bool:
    # Letters of scripts without capitals: some of them put no space between words.
    return (
        char.isspace()
        or char in _BLANKS
        or char in _BEFORE
        or _is_emoji(char)
        or unicodedata.category(char) == "Lo"
    )


def _is_emoji(char: str) -> bool:
    # By range too: emoji newer than this Python have no category yet.
    code = ord(char)
    return (
        unicodedata.category(char) == "So"
        or char in _EMOJI_PARTS
        or 0x1F000 <= code <= 0x1FAFF
        or 0xE0020 <= code <= 0xE007F
    )


def _sentence(before: str) -> str:
    """Return the unfinished sentence at the end of `before`."""
    end = 0
    for found in _SENTENCE_END.finditer(before):
        end = found.end()
    return before[end:]


def _ends_in_fence(text: str) -> bool:
    fence = ""
    for found in _FENCE.finditer(text):
        mark, label = found.groups()
        if text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip():
            continue  # Not at the beginning of its line.
        if not fence:
            fence = mark if mark[0] == "~" or "`" not in label else ""
        elif mark.startswith(fence) and not label.strip():
            fence = ""
    return bool(fence)
