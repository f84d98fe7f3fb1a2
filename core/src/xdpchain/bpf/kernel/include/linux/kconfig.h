/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * kconfig.h: the first text of every unit, before bcc's own headers.
 *
 * bcc wants a kernel source tree. This is one: the types and switches that its headers ask for, and nothing of any kernel's inside. Everything
 * else comes from the kernel headers of the libc (/usr/include/linux), which are the kernel's stable interface. So every node compiles
 * against the same text, whatever its kernel. PAGE_SIZE comes from the compiler's command line.
 */
#ifndef XDPCHAIN_KCONFIG_H
#define XDPCHAIN_KCONFIG_H

/* bcc refuses to compile without it. */
#define CONFIG_BPF_SYSCALL 1

/* bcc brings its own <linux/bpf.h>: keep the libc's out. */
#define __LINUX_BPF_H__

/* <linux/icmpv6.h>, <linux/ipv6.h> and others drag in <linux/if.h> for one name, and it drags in the libc's sockets. */
#define _LINUX_IF_H
#define IFNAMSIZ 16

typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;

typedef unsigned long size_t;
typedef unsigned long uintptr_t;

typedef _Bool bool;
#define true 1
#define false 0

#ifndef NULL
#define NULL ((void *)0)
#endif

#endif
