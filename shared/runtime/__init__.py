"""The runtime of every process: settings, logs, failpoints, readiness, TLS, event loop."""
