"""The log and what is counted from it: the only SQL of the service."""
