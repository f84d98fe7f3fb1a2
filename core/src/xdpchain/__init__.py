# SPDX-License-Identifier: Apache-2.0
"""xdpchain: kernel functions as an ordered chain on a network interface. This module is the public face for plugins."""
