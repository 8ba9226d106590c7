"""`demo`: a dispatch to look at, without Claude and without cost."""
