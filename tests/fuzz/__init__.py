"""Fuzzing: random networks, models and files. Each is a script; ``docs/reliability.md`` has what long runs found."""
