"""Many models in one run: worker processes, the manifest, resuming."""
