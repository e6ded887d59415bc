"""What auditors ask, told from the log itself: every event as it is stored, and balances with all their reasons."""
