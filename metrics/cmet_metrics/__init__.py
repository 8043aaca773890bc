"""Every metric: pure functions on arrays, and the small classes that name, sign and aggregate them."""
