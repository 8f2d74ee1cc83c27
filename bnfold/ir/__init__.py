"""The network as the planner sees it: graphs of nodes and values, whatever file they came from."""
