"""Web console: pages for the people who operate a model."""
