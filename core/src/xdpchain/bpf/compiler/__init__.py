# SPDX-License-Identifier: Apache-2.0
"""The compiler room: C text goes in, relocatable artifacts come out. bcc lives in a short-lived worker process, never in this one."""
