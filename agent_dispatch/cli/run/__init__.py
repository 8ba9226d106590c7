"""Commands that run agents in the foreground, or submit a job."""
