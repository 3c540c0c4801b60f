"""Which tenant has which prompt prefix cached: epochs, floors and accesses, joined.

states.py        PrefixCacheState, HashedPrefixCacheState: the registered types
entries.py       what a prefix cache holds: light, or in a store
tenant_cache.py  the lattice both are made of: tenant -> (epoch, floor, {key: last access})
epochs.py        what the number of an epoch says: when, and whether the tenant is shut
store.py         what is asked of the index that holds the entries
digests.py       digests of a cache, kept up with its changes
wire.py          the layout of a cache on the wire
"""
