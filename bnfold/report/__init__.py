"""Results as objects, as text for people, as JSON for programs."""
