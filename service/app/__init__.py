"""Where everything is constructed and connected, started and stopped."""
