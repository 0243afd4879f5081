"""Invisible watermarks whose decoders are public: the open generators' (`dwtdct`) and TrustMark's (`trustmark`)."""
