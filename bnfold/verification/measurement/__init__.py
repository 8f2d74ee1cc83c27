"""What runs have shown: outputs and errors, and how large an error rounding explains."""
