/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * xdpchain.h: what the BPF source of a function includes.
 *
 * A function is
 *
 *	static __always_inline verdict NAME(struct xdp_md *ctx, struct packet *packet)
 *
 * (struct __sk_buff for the TC hooks). It gets the parsed packet and answers with a verdict; it never makes a tail call. The core
 * generates the program around it: parse, call, count, go on to the next function.
 */
#ifndef XDPCHAIN_H
#define XDPCHAIN_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "endian.h"
#include "verdict.h"
#include "packet.h"

/* The capacity of a map: its schema in Python says it. */
#define BY_SCHEMA 1

#endif
