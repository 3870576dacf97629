"""Large JSON bodies, decoded in a process of their own: one call that decodes holds the interpreter, and so everybody
else's requests, for as long as it takes.
"""

from modelpier_server.offload.decoder import LARGE, Decoder, Large, is_large

__all__ = ["LARGE", "Decoder", "Large", "is_large"]
