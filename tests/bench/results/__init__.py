"""Figures with their goals, and what is made from them: tables, costs and pictures."""
