"""Reading: the API, the pages and the live streams. It changes no count."""
