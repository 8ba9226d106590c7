"""What a run means: from the report of a run to the result that its caller gets."""
