"""Figures with their goals, and the tables, costs and plots made from them."""
