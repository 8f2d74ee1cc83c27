"""PyTorch exported programs as the verification compares them: proofs on their graphs, runs in eager torch."""
