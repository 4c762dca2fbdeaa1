"""The log, and everything derived from it or decided on it: the only SQL of the service."""
