"""The four checks of a verification, cheapest first: structure, weights, layers, outputs."""
