"""The tools: for each its arguments, its function and its entry in the list."""
