"""Models on disk: recognised by content, read without following anything unsafe, written whole or not at all."""
