"""The rules: what each operator does with an affine transform on its tensors. One file per operator family."""
