"""The HTTP side: asks the ledger and the projections, and answers."""
