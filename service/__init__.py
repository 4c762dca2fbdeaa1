"""Commands, and the service that they start: everything that happens over time."""
