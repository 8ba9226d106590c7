"""Commands about jobs: show them, wait for them, act on them."""
