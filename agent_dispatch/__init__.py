"""Hand a task to a Claude Code agent in another project directory, and bring the result back.

The rooms, from the surfaces down. Imports go one way, which `lint-imports` checks:

    __main__        the entry point: chooses a surface before anything heavy is imported
    server/         the MCP surface, over stdio or HTTP: a small front door, the MCP library behind
                    it, calls that outlive their callers, MCP Tasks, and forms
    cli/            the command line, and the live view `watch`
    worker          the third surface: a process that runs one background job
    remote/host     the fourth surface: serves callers on other machines
    run/            runs dispatches: the service that the surfaces call, the run loop, dialogues,
                    shared runs, the machine-wide limit, permission questions, evidence, and money
    remote/caller   agents and jobs on other machines, for the service
    jobs/           one durable record per dispatch, a lock that shows whether its owner lives, the
                    mailbox of a running job, and the ledger
    claude/         one `claude` and the processes around it: fork server, guard, conversation;
                    and other programs under a guard
    config/         `agents.toml`, the settings and documents of a project directory, and the
                    configuration files of MCP clients
    file_locks      locks between processes
    files           private durable files
    threads         threads for calls that block
    core/           decisions: values in, values out; imports no event loop
    model/          frozen msgspec structs: stored records and wire formats
    errors          exceptions for wrong calls
    preload         imports early, in servers and workers, what others import only when needed

The life of a dispatch: a surface turns its arguments into a `DispatchRequest`. The service checks
the request and records a job durably before anything starts. The run waits for a slot, and then a
guard starts `claude` in the agent's directory. The output is decoded into events while it
arrives, and `core.outcome` turns them into one `DispatchResult`. The terminal record is on disk
before the answer is given. When the scope around a dispatch ends, through an answer, a deadline, a
cancellation or the death of this process, the guard ends every process of the run.

Identical calls share one run, and a clean answer is reused for a while. Several dispatches at once
are one nursery. A dialogue keeps the processes of its two agents from the first turn to the last.

The life of a job: `pending`, `running`, then `done`, `failed` or `cancelled`. A terminal status
never changes. A `call` belongs to the process that serves its caller. A `background` job belongs
to a worker, which takes over the job's lock from the submitter; so does a `group`, a parallel call
in the background, and each job that another machine submits. If a reader finds a job that has
not ended and whose lock is free, its owner has died. The reader then records the end: `cancelled`
if that was requested or the surrounding job has ended, else `failed` with `lost`.

`docs/design.md` has the goals, the processes, and the invariants with their tests.
"""

__version__ = "0.1.0"
