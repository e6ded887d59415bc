"""Every shape that crosses the wire."""
