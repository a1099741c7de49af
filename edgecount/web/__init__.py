"""REST, live view, line and zone editor."""
