"""The host's side: serves one remote caller on stdin and stdout.

    stub          reads frames, opens the service, and renews leases while the caller is heard
    caller_jobs   takes each job once, watches it, and cancels it
    methods       all other requests
    rights        what a caller may do: everything, or what its forced command allows

It is a surface like the MCP server and the command line, and owns no job.
"""
