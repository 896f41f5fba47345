"""ESP in the Linux kernel (XFRM): states and policies over netlink, and an `xfrm` interface where the kernel has them.

| file | what |
|---|---|
| `support.py` | can this kernel do it, and may we? |
| `plane.py` | the `DataPlane` |
| `identity.py` | what shows that a state, a policy or an interface is ours |
| `tunnel.py` | the interface that routes and addresses go to |
| `states.py` | one direction of a child SA as the kernel's state |
| `policies.py`, `selectors.py` | which packets an SA is for |
"""
