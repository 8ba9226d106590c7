"""Dialogues of two agents: their turns, their prompts, and how a message closes one."""
