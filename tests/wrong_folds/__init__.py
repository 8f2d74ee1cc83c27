"""The corpus of wrong folds: folds that are wrong, each in one known way, to test that verification sees them."""
