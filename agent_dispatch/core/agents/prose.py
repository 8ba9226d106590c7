"""The paragraphs of prose in a README or an instruction file."""

import re
from collections.abc import Iterator
from itertools import chain

from agent_dispatch.core.agents.phrases import ABOUT, HOW_TO

MAX_PARAGRAPH_CHARS = 2000
_MAX_LINES = 2000
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE_OR_UNDERLINE = re.compile(r"[-=*_~^#\s]{3,}|=+|-+")
_OTHER_BLOCK = re.compile(
    r"(?:[-*+•]|\d{1,3}[.)])\s|[|@]|\.\. |> ?\[!|\[[^\[\]]{1,100}\]:|:[\w -]{1,40}:|\[{1,2}_?TOC"
    r"|\{[%{]|(?:import|export) .*['\"{];?$"
)


def as_markdown(text: str, name: str) -> str:
    """Translate the marks of other markup languages that matter here to Markdown."""
    ending = name.rpartition(".")[2].lower()
    if ending == "org":
        text = re.sub(r"(?mi)^[ \t]*#\+(?:begin|end)_(?:src|example|quote).*$", "```", text)
        text = re.sub(r"(?m)^\*+[ \t]", "# ", text)
        text = re.sub(r"\[\[[^\[\]]{1,500}\]\[([^\[\]]{1,500})\]\]", r"\1", text)
        return re.sub(r"\[\[[^\[\]]{1,500}\]\]", "", text)
    if ending in ("adoc", "asciidoc"):
        # The lines below the title are its author, revision and attributes.
        text = re.sub(r"\A(\s*=[ \t].*\n)(?:[^\n]+\n)+", r"\1", text)
        text = re.sub(r"(?m)^(?:-{4,}|\.{4,}|/{4,}|\|={3,})[ \t]*$", "```", text)
        text = re.sub(r"(?m)^=+[ \t]", "# ", text)
        text = re.sub(r"(?m)^(?:\w+::.*|\[.*\]|//.*|:[\w!-]+:.*)$", "", text)
        text = re.sub(r"(?:image:)[^\s\[\]]{1,300}\[[^\[\]]{0,300}\]", "", text)
        return re.sub(
            r"(?:link:|https?://)[^\s\[\]]{1,300}\[([^\[\],]{0,300})[^\[\]]{0,100}\]", r"\1", text
        )
    if ending == "rst":
        text = re.sub(r"`([^`<>]{1,300}?)\s*<[^<>`]{1,300}>`__?", r"\1", text)
        text = re.sub(r":[\w:+-]{1,40}:`([^`]{1,300})`", r"\1", text)
        text = re.sub(r"\|[^|\s][^|\n]{0,60}\|_{0,2}", "", text)
        return re.sub(r"`([^`]{1,300})`__?|(?<=\w)__?\b(?!\w)", r"\1", text)
    return text


def paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the paragraphs of prose in a Markdown text, without lists, code, tables and headings.

    With each comes whether it is deep: below a heading that is neither the title nor announces a
    description of the project. Paragraphs below a heading for instructions are left out.
    """
    lines: list[str] = []
    skips_block = False
    place = _Place()
    for line in chain(_prose_lines(text), [""]):
        bare = line.strip()
        is_rule = _RULE_OR_UNDERLINE.fullmatch(bare) is not None
        is_heading = bare.startswith("#") and not is_rule
        is_other = skips_block or _OTHER_BLOCK.match(bare) or (not lines and line[:1] in " \t")
        if bare and not (is_rule or is_heading or is_other):
            lines.append(bare[:MAX_PARAGRAPH_CHARS].lstrip("> "))
            continue
        if lines and is_rule:
            # An underline makes a heading of the lines above it.
            place.enter(" ".join(lines), 1 if bare[0] == "=" else 2)
        elif lines and not place.is_left_out:
            yield " ".join(lines), place.is_deep
        lines = []
        if is_heading and not (title := bare.lstrip("#")).startswith("+"):
            place.enter(title.strip(), len(bare) - len(title))
        if not is_rule:
            skips_block = bare != "" and not is_heading


class _Place:
    """The kind of heading above a paragraph."""

    def __init__(self) -> None:
        self.is_deep = False
        self.is_left_out = False
        self._level = 0
        self._headings = 0

    def enter(self, heading: str, level: int) -> None:
        """Pass a heading."""
        if self.is_left_out and level > self._level:
            return
        self._headings += 1
        self._level = level
        is_title = self._headings == 1 and level < 3
        about = ABOUT.match(heading) is not None
        how_to = not about and HOW_TO.match(heading) is not None
        is_name = is_title and not (how_to and HOW_TO.fullmatch(heading))
        # The name of a project may begin like "Build" or "Test".
        self.is_left_out = how_to and not (is_title and level == 1)
        self.is_deep = not about and not is_name


def _prose_lines(text: str) -> Iterator[str]:
    """Yield the lines with blank lines in place of front matter, comments and fenced code."""
    fence = ""
    in_comment = False
    lines = text.removeprefix("\ufeff").splitlines()[:_MAX_LINES]
    start = 0
    if lines and lines[0].rstrip() in ("---", "+++") and lines[0].rstrip() in lines[1:]:
        start = lines.index(lines[0].rstrip(), 1) + 1
    for line in lines[start:]:
        if in_comment:
            in_comment = "-->" not in line
        elif fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif "<!--" in line:
            before, _, rest = line.partition("<!--")
            in_comment = "-->" not in rest
            yield before + rest.partition("-->")[2]
            continue
        else:
            yield line
            continue
        yield ""
