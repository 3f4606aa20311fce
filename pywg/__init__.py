"""Userspace WireGuard: the protocol, its data path and the programs that drive them."""

__version__ = "0.1.0"
