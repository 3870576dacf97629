"""Where the descriptors of all messages of this server are: generated code puts them here, reflection looks here."""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
