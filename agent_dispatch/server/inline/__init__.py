"""Cuts answers to what one message should hold: results, dialogues, groups, jobs, agents."""
