"""The command that starts and operates Loyalty Ledger."""
