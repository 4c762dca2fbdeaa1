"""The ground floor: what a slice is."""
