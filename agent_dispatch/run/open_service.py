"""Make a service and all of its parts, for as long as a block runs."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import trio

from agent_dispatch.claude.conversation import open_claude as open_real_claude
from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.paths import config_path, jobs_path, with_absolute_paths
from agent_dispatch.config.registry import Registry
from agent_dispatch.core.command import current_depth
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.remote.caller.hosts import Hosts
from agent_dispatch.run.accounts import Accounts
from agent_dispatch.run.background import Workers
from agent_dispatch.run.limits import Limits
from agent_dispatch.run.notify import Notifier
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import Planner
from agent_dispatch.run.service import Service
from agent_dispatch.run.turns import OpenClaude
from agent_dispatch.run.work_tree import WorkTrees
from agent_dispatch.threads import DirectoryThreads


@contextlib.asynccontextmanager
async def open_service(
    *,
    environ: Mapping[str, str],
    fork_server: ForkServer | None,
    claude: Sequence[str] | None = None,
    store: JobStore | None = None,
    open_claude: OpenClaude | None = None,
) -> AsyncIterator[Service]:
    """Wire a service for as long as the block runs.

    Args:
        environ: Where configuration and jobs are, what agents inherit, and the nesting depth.
        fork_server: Forks guards and workers; None starts each the slow way.
        claude: The program to run in place of `claude` on PATH, with its first arguments.
        store: The records, in place of the directory that `environ` names.
        open_claude: Runs claude, in place of the real one.

    Raises:
        ConfigError: `environ` names a configuration file that cannot be used.
    """
    environ = with_absolute_paths(environ)
    registry = Registry(config_path(environ), environ=environ)
    jobs = jobs_path(environ, registry.path)
    launcher = Launcher(fork_server)
    notifier = Notifier(registry, environ)
    store = store or JobStore(jobs, on_end=notifier.job_ended, origin=Origin(environ))
    threads = DirectoryThreads()
    parts = RunParts(
        planner=Planner(registry, environ, claude, threads),
        limits=Limits(jobs, current_depth(environ)),
        accounts=Accounts(store.ledger, environ),
        open_claude=open_claude or partial(open_real_claude, launcher),
        launcher=launcher,
        work_trees=WorkTrees(launcher, threads),
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        hosts = Hosts(
            registry=registry,
            store=store,
            jobs=str(jobs),
            launcher=launcher,
            environ=environ,
            nursery=nursery,
            on_end=notifier.job_ended,
        )
        try:
            yield Service(
                registry=registry,
                store=store,
                hosts=hosts,
                parts=parts,
                threads=threads,
                workers=Workers(store, fork_server, environ, claude),
                nursery=nursery,
                environ=environ,
                on_event=notifier.notify,
            )
        except Exception as error:
            # Raised outside the nursery, which would wrap it in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
