# SPDX-License-Identifier: Apache-2.0
"""The core's own checks for `xdpchain doctor`, one module for each thing that is looked at. None of them changes anything."""
