"""How fast images are scored offline."""
