"""The static proof: both models read as mathematics by abstract interpretation, then matched."""
