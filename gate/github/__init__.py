"""GitHub: what started this run, its API, and what is told there."""
