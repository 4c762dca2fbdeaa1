"""The request path: batches of records become predictions with slices, and no function can delay them."""
