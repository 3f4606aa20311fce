"""What wg-quick does to a system: addresses, routes, hooks; one module per operating system."""
