"""Read by every interpreter whose PYTHONPATH has this folder."""

import no_network

no_network.block()
