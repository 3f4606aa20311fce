"""Tunnel devices: opened, configured and watched, one module per operating system."""
