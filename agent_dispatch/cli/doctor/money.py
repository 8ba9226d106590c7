"""`doctor`'s look at the ledger and at the account's limits."""

import time
from collections.abc import Iterator

from agent_dispatch.cli.doctor.checks import Check, Status
from agent_dispatch.cli.jobs.stats import account_use
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.errors import ConfigError
from agent_dispatch.jobs.errors import JobStoreError


def check_money(shell: Shell) -> Iterator[Check]:
    """Enter the runs whose owner died, and say how much of the account's limits is in use."""
    try:
        ledger = open_store(shell).ledger
        ledger.recover()
    except ConfigError:
        return  # `check_config` reports it.
    except JobStoreError as error:
        yield Check("ledger", Status.FAIL, str(error), "agent-dispatch stats")
        return
    if (limits := ledger.limits()) is not None:
        yield Check("account", Status.NOTE, account_use(limits, time.time()))
