"""`init` and `uninstall`: our entries in the files of Claude Code and other clients."""
