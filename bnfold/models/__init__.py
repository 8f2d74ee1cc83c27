"""Models as the operations see them: each knows how it is read, folded, verified, calibrated and written."""
