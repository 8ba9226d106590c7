"""`watch`: the live view of all jobs."""
