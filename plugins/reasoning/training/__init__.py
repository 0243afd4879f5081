"""How the reasoning plugin's models are made; not needed to use them."""
