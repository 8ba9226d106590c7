"""`agents.toml`, what a project directory says of itself, and the files of MCP clients.

The modules:

    paths          where the configuration and the jobs are
    file           the file itself: read when it changed, edited under a lock
    keys           what each key takes; reading, editing and importing follow this table
    schema         the data of the file, checked
    registry       list and inspect agents; `groups` and `hosts` do the same for theirs
    agent_fields   checks the fields that a call gives for an agent
    rights_log     when an agent got other rights
    yaml_import    the predecessor's `agents.yaml`
    edit/          TOML and JSON with comments, changed in place
    project/       facts and documents of a project, and what Claude Code's files say about it
    clients/       where other MCP clients keep their servers, and our entry there
"""
