"""What many servers do together, by simulations whose parameters were measured here."""
