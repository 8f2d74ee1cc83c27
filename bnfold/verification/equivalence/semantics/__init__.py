"""What each operator computes, as abstract values. One file per operator family."""
