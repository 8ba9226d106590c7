"""Runs dispatches: from a request that a surface has decoded to a recorded result.

To follow a dispatch, read in this order:

    service         what the surfaces call; gives a call to the host of its agent, or to the
                    modules below (`open_service` makes it)
    plan            checks a request against one snapshot of the configuration
    single_flight   answers from the cache, or by a run that is going on
    runner          runs calls, and the job of a worker, under a record
    run_job         one job from its first record to its last, whatever ends it
    dispatch        the turns, checks and holds of one dispatch; `dialogue` is its sibling
    parts           what every run uses; `admitted` lets a run start
    limits, slots   the locks of a run, and the machine-wide limit
    turns           one claude and its turns: the loop of every run

Beside a run: `questions` and `messages` (its mail), `accounts` (money), `verify`, `work_tree` (what
it changed), `usage_limit` (holds), `time_limit`, `notify` and `housekeeping`.

Other work of the service: `parallel` and `dialogue_across_hosts` (several agents), `background`
(handing a job to a worker), `jobs` (jobs that were started, with `give_answer` and
`send_message`), `agents`, and `resume_checks`.
"""
