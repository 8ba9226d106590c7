"""Cuts answers to what one message should hold: results, dialogues, jobs, agents."""
