"""The numeric kernels: each a readable reference, its fast routes, and one dispatcher."""
