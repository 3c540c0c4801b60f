"""meshlib behind a documented HTTP API."""
