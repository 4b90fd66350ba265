"""What a run leaves for people: tables, plots, the contact sheet.

May import `evaluation`, `data`, `recipes`, `networks`, `publishing` and what stands below them.
"""
