"""Campaigns: what a few seconds of tests can't find. Each is a script; ``docs/reliability.md`` has what they found."""
