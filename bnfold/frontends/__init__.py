"""The model formats: how each is read as a graph, edited, folded, run and verified."""
