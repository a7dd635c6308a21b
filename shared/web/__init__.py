"""What every HTTP server here has in common: problems, forms, slow and silent clients, answers in one piece."""
