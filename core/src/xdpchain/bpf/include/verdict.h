/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * verdict.h: what a function says about a packet, and why.
 *
 * The low three bits are the action, the rest the reason: one of the enum constants that the core makes of the function's declared reasons
 * (Reason("rate_exceeded") is RATE_EXCEEDED here), or NO_REASON. The value is also the index of the counter.
 */
#ifndef XDPCHAIN_VERDICT_H
#define XDPCHAIN_VERDICT_H

typedef u32 verdict;

/* ABORT to REDIRECT are the numbers of enum xdp_action. */
enum action {
	ABORT = 0,	/* the function found itself broken: drop, and raise the xdp_exception tracepoint */
	DROP = 1,
	PASS = 2,	/* to the kernel's network stack, past the rest of the chain */
	TX = 3,		/* back out of the interface it came in on */
	REDIRECT = 4,	/* where a redirect helper has pointed it */
	NEXT = 5,	/* to the next function of the chain */
	BROKEN = 6,	/* counted by the core: the next hop could not be taken */
};

#define NO_REASON 0
#define VERDICT_ACTION_BITS 3
#define VERDICT_ACTION_MASK ((1 << VERDICT_ACTION_BITS) - 1)

static __always_inline verdict verdict_of(u32 action, u32 reason)
{
	return reason << VERDICT_ACTION_BITS | action;
}

static __always_inline u32 verdict_action(verdict v)
{
	return v & VERDICT_ACTION_MASK;
}

static __always_inline verdict drop(u32 reason)     { return verdict_of(DROP, reason); }
static __always_inline verdict pass(u32 reason)     { return verdict_of(PASS, reason); }
static __always_inline verdict tx(u32 reason)       { return verdict_of(TX, reason); }
static __always_inline verdict redirect(u32 reason) { return verdict_of(REDIRECT, reason); }
static __always_inline verdict next(u32 reason)     { return verdict_of(NEXT, reason); }

#endif
