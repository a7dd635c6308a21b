"""Who may call what: administrators and partners by their named secrets, some bound to organisations."""
