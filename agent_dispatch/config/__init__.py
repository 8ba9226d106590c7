"""`agents.toml`, what a project directory says of itself, and the files of MCP clients.

The modules:

    paths          where the configuration and the jobs are
    file           the file itself: read when it changed, edited under a lock
    keys           what each key takes; reading, editing and importing follow this table
    values         how values are read and checked
    schema         the data of the file, checked
    snapshot       one read of the file: settings, and agents with their settings inherited
    registry       lists and details of agents
    agents         add, update and remove agents; `agent_fields` checks what a call gives
    groups, hosts  the same for groups and hosts
    sightings      what hosts last said about their agents
    rights         which changes of an agent need a person, and the log of such changes
    yaml_import    the predecessor's `agents.yaml`
    edit/          TOML and JSON with comments, changed in place
    project/       facts and documents of a project, and what Claude Code's files say about it
    clients/       where other MCP clients keep their servers, and our entry there
"""
