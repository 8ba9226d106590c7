"""Whether a regular expression is one of JavaScript with the flag `u`, as JSON Schema has them.

Only what is certainly wrong is found; the CLI itself compiles it in the end.
"""

import re

_ESCAPE = re.compile(
    r"\\(?:[dDwWsSbBfnrtv0-9^$\\.*+?()\[\]{}|/-]|c[A-Za-z]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}"
    r"|u\{[0-9A-Fa-f]+\}|[pP]\{[A-Za-z0-9_=]+\}|k<[^>]+>)"
)
_GROUP = re.compile(r"\((?:\?(?::|=|!|<=|<!|<[^\W\d][\w$]*>|[ims]*(?:-[ims]+)?:))?")
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def pattern_fault(pattern: str) -> str | None:
    """Return what is wrong with `pattern`, or None."""
    depth = 0
    can_repeat = False
    position = 0
    while position < len(pattern):
        sign = pattern[position]
        length, repeatable = 1, True
        match sign:
            case "\\":
                escape = _ESCAPE.match(pattern, position)
                if escape is None or escape[0] == "\\-":
                    return f"unknown escape {pattern[position : position + 2]}"
                length, repeatable = len(escape[0]), escape[0] not in ("\\b", "\\B")
            case "[":
                end = _class_end(pattern, position)
                if isinstance(end, str):
                    return end
                length = end - position
            case "(":
                group = _GROUP.match(pattern, position)
                if group is None or (group[0] == "(" and pattern.startswith("(?", position)):
                    return f"unknown group {pattern[position : position + 3]}"
                depth += 1
                length, repeatable = len(group[0]), False
            case ")":
                depth -= 1
                if depth < 0:
                    return ") without ("
            case "*" | "+" | "?" | "{":
                count = _COUNT.match(pattern, position)
                if not can_repeat or (sign == "{" and count is None):
                    return f"nothing to repeat before {sign}"
                if count is not None and count[2] and int(count[1]) > int(count[2]):
                    return f"numbers out of order in {count[0]}"
                length = 1 if count is None else len(count[0])
                # One more `?` makes it lazy.
                length += pattern.startswith("?", position + length)
                repeatable = False
            case "]" | "}":
                return f"{sign} alone"
            case "^" | "$" | "|":
                repeatable = False
            case _:
                pass
        can_repeat = repeatable
        position += length
    return "( without )" if depth else None


def _class_end(pattern: str, begin: int) -> int | str:
    """Return where the class that begins there ends, or what is wrong with it."""
    position = begin + 1
    while position < len(pattern):
        if pattern[position] == "]":
            return position + 1
        if pattern[position] == "\\":
            escape = _ESCAPE.match(pattern, position)
            if escape is None or escape[0] == "\\B" or escape[0].startswith("\\k"):
                return f"unknown escape {pattern[position : position + 2]}"
            position += len(escape[0])
        else:
            position += 1
    return "[ without ]"
