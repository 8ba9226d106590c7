"""One durable record per dispatch, and a lock that shows whether its owner is alive.

    store           creates, updates, reads and finishes jobs; holds the parts below
    record          what each step of a job's life makes of its record
    record_format   the bytes of a record file
    record_files    reads, replaces and lists the record files
    locks           the files in `live/` of a job that has not ended
    reconcile       records the end of a job whose owner has died
    listing         the newest jobs, by status or by any other condition
    retention       removes old records and the litter of dead processes
    oddities        reports entries of the directory that are not ours
    requests        asks the owner of a job to cancel it, or to take a message
    mailbox         the file with the messages to an owner
    late_answers    answers to permission questions that came after the job had ended
    remote_callers  what a host keeps for callers on other machines
    ledger          what runs cost, and what unfinished runs may still cost
    ledger_lines    the ledger's files
    owner           Trio: a job of this process
    waiting         Trio: the jobs of other processes

`ids`, `origin`, `log` and `errors` are small and say what they are. Only `owner` and `waiting` use
the event loop; the rest blocks, and runs in threads.
"""
