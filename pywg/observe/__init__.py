"""What a tunnel tells of itself while it runs: counts, events, captures, findings."""
