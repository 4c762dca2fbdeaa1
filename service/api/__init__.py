"""The service over HTTP: routes by resource, what travels over the wire, and what is refused."""
