"""What each operation found: result objects that the reports are made of. They import no report."""
