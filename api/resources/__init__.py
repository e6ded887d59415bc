"""The JSON side of the API, a module per noun."""
