"""Tools that inject faults into the system."""
