"""Mathematics on numpy arrays alone: affine transforms, rounding, the BatchNorm reference, linear weights."""
