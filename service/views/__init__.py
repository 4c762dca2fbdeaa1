"""Read models: what pages and the API show, from what is in force and one reading of the store."""
