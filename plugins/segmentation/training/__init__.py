"""How the segmentation plugin's weights are made; not needed to use them."""
