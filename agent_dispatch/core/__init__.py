"""Decides: values in, values out, without I/O and without an event loop.

From a call to its answer:

    request/      what callers ask: arguments, checks, JSON Schemas, and the prompt
    command       the command line of claude; `environment` has the variables that it inherits
    stream/       the stream-json protocol: lines to stdin, events from stdout, the transcript
    outcome/      what a run means: from its report to its result
    dialogue/     the turns of two agents
    group_job     several dispatches under one job
    cache         answers that are given again

Used by several of them:

    agents/       the description of a project, and the rights of an agent
    money/        ceilings, lines of the ledger, and statistics
    questions     permission questions that a person can answer
    next_step     advice, and how it gets into texts
    masking       masks keys in texts
    text          cuts and cleans texts
"""
