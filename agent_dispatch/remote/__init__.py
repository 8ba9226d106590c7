"""Agents on other machines: what both sides share, the caller's side, and the host's side.

    frames        what travels: the kinds of frames and their lines of JSON
    handshake     the greeting of a host after noisy start-up files, and the common protocol
    wire          one end of a link: queue, pings, death by silence
    this_host     the identity of this machine, and the environment of jobs for remote callers
    caller/       sends dispatches to the hosts of other agents, and follows them through cuts
    host/         the surface that serves one remote caller: `agent-dispatch _remote`

A link is one process of a caller, usually `ssh`, that starts `_remote` on the host.
"""
