"""The full monitoring loop in minutes: a project, its traffic, its labels, and the service's reaction to them."""
