"""Which BatchNorms fold, where to, and with which weights: the same for every frontend."""
