# SPDX-License-Identifier: Apache-2.0
"""The lab: small networks in namespaces in which xdpchain can be watched at work."""
