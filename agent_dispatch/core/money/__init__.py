"""Costs of runs: ceilings, lines of the ledger, and statistics."""
