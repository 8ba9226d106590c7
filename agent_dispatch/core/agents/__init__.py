"""What is known of an agent without a run: a description of its project, and its rights."""
