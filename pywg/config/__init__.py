"""wg-quick files: parsed with positions into a typed model, and written back."""
