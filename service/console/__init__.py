"""The web pages: what the monitor last committed, for people; made here, with nothing fetched from elsewhere."""
