"""Tell whether a picture is authentic, AI-generated, AI-edited or tampered with."""
