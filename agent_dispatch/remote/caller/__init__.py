"""The caller's side of agents on other hosts.

    hosts         what a service uses: dispatches, and the parts `jobs` and `agents`
    remote_jobs   records each job durably before it is sent, and what was last known of it
    links         one link to each host; requests, and a job followed through any number of cuts
    link          one process and its connection, made again when it is cut
    ssh           the command lines that start that process
    diagnosis     why there is no link, and whether another attempt may help
    connection    requests and answers on a link that is up
    followed_job  what to send about a job after a cut, and how long to try
    translate     what a host says, as callers here read it
    bookkeeping   what happens here when something is learned about a job
    jobs, agents  requests about jobs and agents on other hosts

A dispatch passes the modules in this order.
"""
