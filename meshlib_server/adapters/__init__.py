"""Plugs for routers that people run already: each by a protocol of theirs, over one running node.

Rule: an adapter stands on what the library exports and on the service, each needs an extra of its
own, and nothing below imports any: `meshlib_server.plugs` loads one when a setting asks for it.

envoy/     the rate limit service of Envoy, and the endpoint picker: extra `envoy`
litellm/   limits and routing for the LiteLLM proxy: extra `litellm`
engines/   what vLLM and SGLang say of their caches and their load: extra `engines`
workers/   workers from a file, DNS, or Kubernetes, extra `kubernetes`
openai.py  what is read in OpenAI bodies, for all of them
"""

from __future__ import annotations

__all__: list[str] = []
