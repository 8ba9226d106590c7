"""What callers ask: arguments, checks, JSON Schemas, and the prompt."""
