"""What a project says about itself: one file, then variables, read into one frozen value."""
