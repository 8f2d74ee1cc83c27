"""Mutation testing of bnfold: small changes to its code, of which the tests must notice every one that matters."""
