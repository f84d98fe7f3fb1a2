/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* if_packet.h: bcc asks for it by the kernel tree's name; what it means is the libc's copy, further down the search path. */
#include_next <linux/if_packet.h>
