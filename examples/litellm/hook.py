"""What the LiteLLM proxy loads: limits over all of its replicas and workers, by a mesh node.

The node is the one that MESH_ADDRESS names, with the token in MESH_TOKEN.
"""

from meshlib_server.adapters.litellm import ModelTerms, make_handler

handler = make_handler(models={"chat": ModelTerms(rpm=100, tpm=100_000)}, has_routing=True)
