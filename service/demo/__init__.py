"""The whole loop shown in minutes: a project, its traffic, its labels, and what the service makes of them."""
