"""The model formats: how each is read as a graph, edited and written."""
