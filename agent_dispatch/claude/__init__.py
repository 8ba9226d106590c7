"""One `claude` process and everything below it.

    conversation   claude in a conversation: lines in, events out
    program        any other program, from its start to its end
    child          a guarded child, from its start to the end of its last process
    pipes          the pipes between an owner and a child
    launcher       starts guards and workers, through the fork server or with a new Python
    fork_server    a small process that forks guards and workers
    slow_start     starts one of them without it
    frames         requests to the fork server
    guard          the process beside each child that ends its tree
    process_tree   finds and signals the processes of a tree
    prctl          attributes of a process that only Linux has
    process_1      what the first process of a container must do
    open_files     the limit of open files, for owners and for agents
    find_claude    where the `claude` program is

What is forked early needs the standard library only: `fork_server`, `frames`, `guard`,
`slow_start`, `open_files`, `prctl` and `process_tree`.
"""
