"""Text that no UTF-8 encoder takes."""

import re
from collections.abc import Mapping
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair. File names that are not UTF-8 carry them (PEP 383)."""


def scrubbed(value: Any) -> Any:
    """Return plain values with U+FFFD in place of each half of a surrogate pair."""
    match value:
        case str():
            return SURROGATE.sub("\ufffd", value)
        case Mapping():
            return {scrubbed(key): scrubbed(item) for key, item in value.items()}
        case list() | tuple():
            return [scrubbed(item) for item in value]
        case _:
            return value
