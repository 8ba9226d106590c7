"""The configuration file that `init` creates."""

import os
from pathlib import Path

from agent_dispatch.config.file import ConfigFile

TEMPLATE = """\
# agent-dispatch: the agents, and what they may do. Read on every call; no restart is needed.
# `agent-dispatch add NAME DIRECTORY` adds an agent, `agent-dispatch doctor` checks this file.

# [agents.infra]
# directory = "~/projects/infra"
# description = "Infrastructure agent. MCP: portainer."
# timeout = 300                                # seconds a run may take
# model = "sonnet"
# max_budget_usd = 1.0                         # US dollars a run may cost; 0 lifts the default
# permission_mode = "acceptEdits"              # acceptEdits, auto, bypassPermissions, default,
#                                              # dontAsk, manual or plan
# allowed_tools = ["Read", "Bash(git log:*)"]  # [] grants nothing beyond the project's settings
# disallowed_tools = ["Write"]

# [groups.shop]                                # agents that work on one thing
# description = "Ask infra first."             # for the caller
# shared_context = "The stack is shop-prod."   # told to each member with a task of the group
# members = [{ agent = "infra", use_for = "logs" }]

# [settings]                                   # what every agent inherits
# default_timeout = 300
# default_model = "sonnet"
# default_permission_mode = "default"
# default_allowed_tools = ["Read"]
# default_max_budget_usd = 5.0
# max_dispatch_depth = 3                       # how deep agents may dispatch to agents
# max_concurrency = 5                          # runs at once, on this machine, per depth

# [settings.cache]
# enabled = true
# ttl = 300                                    # seconds an answer stays valid
# max_size = 1000
"""


def create_config(path: Path) -> bool:
    """Write the commented template, readable by the owner only, unless the file exists.

    Returns:
        Whether the file is new. An existing file is never changed, even if it is broken.

    Raises:
        ConfigError: It could not be written.
    """
    # Checked first: an existing file may be in a directory where no lock can be made.
    return not os.path.exists(path) and ConfigFile(path).create(TEMPLATE)
