# SPDX-License-Identifier: Apache-2.0
"""The daemon: it applies the node's file, follows interfaces, answers the command line, and shows metrics."""
