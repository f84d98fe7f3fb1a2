# SPDX-License-Identifier: Apache-2.0
"""The chain: what is wanted, the plan that leads there, the generations in the kernel, and what they counted."""
