"""Every shape that crosses the wire, as msgspec Structs; nothing here knows what is done with it."""
