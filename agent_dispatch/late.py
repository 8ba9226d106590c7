"""What other modules import only when they need it, imported early.

An upgrade takes files away from under a server and its workers, which then cannot import them.
Short commands keep the late imports, which most of them never reach.
"""

import importlib

LATE_IMPORTS = (
    "difflib",
    "shlex",
    "tomli_w",
    "agent_dispatch.claude.guard",
)


def import_late_modules() -> None:
    """Import now what would be imported during a call."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
