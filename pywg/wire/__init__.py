"""Bytes on the wire: the four messages, endpoints, and the IP headers inside."""
