"""The tests of bnfold: the package mirrored, and what no unit test can show (fuzzing, mutation, wrong folds)."""
