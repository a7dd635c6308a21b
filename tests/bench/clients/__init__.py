"""What asks for pages and sends signatures: wrk, crowds of viewers, and single requests that are looked at."""
