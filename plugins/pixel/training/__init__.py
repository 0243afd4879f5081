"""How the pixel plugin's weights are made; not needed to use them."""
