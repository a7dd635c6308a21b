"""What every process has: settings, logs, failpoints, readiness, TLS, an event loop."""
