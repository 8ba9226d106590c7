"""Cuts what goes out with a call: results, dialogues, jobs and lists of agents."""
