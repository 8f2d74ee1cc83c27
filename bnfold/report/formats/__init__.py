"""Machine-readable reports of a verification, one file per format."""
