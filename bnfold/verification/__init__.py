"""Whether a folded model computes what the original computes. :mod:`bnfold.verification.judge` is the way in."""
