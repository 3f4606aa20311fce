"""The cross-platform configuration protocol: text format, server and client."""
