"""Modules that others import only when they need them, imported early.

An upgrade removes the files of a running server and its workers, which then cannot import them.
Short commands do not call this: most of them never need these modules.
"""

import importlib

PRELOADED = (
    "difflib",
    "shlex",
    "tomli_w",
    "agent_dispatch.claude.process_tree",
)


def preload_modules() -> None:
    """Import now the modules that would be imported during a call."""
    for name in PRELOADED:
        importlib.import_module(name)
