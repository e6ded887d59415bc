"""The read side: one read model per file, told from the log."""
