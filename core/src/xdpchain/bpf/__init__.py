# SPDX-License-Identifier: Apache-2.0
"""Everything that speaks to the kernel's BPF: the compiler room, the loader, maps, programs, links and pins."""
