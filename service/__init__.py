"""What happens over time: the commands, and the service that they start."""
