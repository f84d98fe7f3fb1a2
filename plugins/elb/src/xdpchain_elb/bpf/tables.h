/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * tables.h: everything that elb keeps in the kernel, and who writes it.
 *
 * An IPv4 address is written as IPv4-mapped (::ffff:a.b.c.d) wherever a key holds 16 bytes, so that both families share one table.
 *
 *	service --elb_services--> VIP --elb_vips--> pool --elb_rings--> ring[slot] --> member --elb_members--> outer header
 *	                                                                                 |
 *	                                              flow --elb_flows--> member         +--backend--elb_hops--> MAC, MTU
 *
 * A pool is a set of backends with one ring: each VIP has one, and one more for each of its source routes. A member is one backend of one
 * pool. Numbers stay what they are while what they name is there; 0 is none. The config handler writes all of it, but for what is said
 * beside a table.
 */
#ifndef ELB_TABLES_H
#define ELB_TABLES_H

#define ELB_RING_SIZE 65537
#define ELB_POOL_MEMBERS 4096		/* most members of one pool */
#define ELB_LAST_SLOTS 256		/* of a ring, which are taken in another way than the others: see ring.h */
#define ELB_TICK_BITS 30		/* times are in ticks of 2^30 ns (1.07 s) of the monotonic clock */

/* port 0: any port of the address; port 0 and proto 0: the address itself, with the VIP 0 */
struct elb_service {
	__be32 address[4];
	__be16 port;
	u8 proto;
	u8 zero;
};
_Static_assert(sizeof(struct elb_service) == 20, "as in the schema");

struct elb_prefix {
	u32 length;	/* bits of what follows: 32 + those of the (mapped) address */
	u8 proto;
	u8 zero;
	__be16 port;
	__be32 address[4];
};
_Static_assert(sizeof(struct elb_prefix) == 24, "as in the schema");

/* The low bits of elb_gates. Those above are a number that changes with the services: packets remember what they found under it. */
enum elb_gate {
	ELB_ANY_PORTS = 1,	/* there are VIPs for any port */
	ELB_PREFIXES = 2,	/* there are VIPs that are prefixes */
	ELB_CHANGING = 4,	/* services are changing: packets remember nothing */
};

enum elb_option {
	ELB_NO_SOURCE_PORT = 1,			/* hash the source port as 0 */
	ELB_NO_DESTINATION_PORT = 2,		/* hash the destination port as 0 */
	ELB_DESTINATION_PORT_ONLY = 4,		/* hash the destination port in place of the source port, the source address as 0 */
	ELB_PORTLESS = 8,			/* no port is in the hash: fragments find their backend */
	ELB_SOURCE_ROUTES = 16,			/* elb_sources has routes for this VIP's pool */
	ELB_QUIC = 32,				/* elb_ids by QUIC connection id */
	ELB_SERVER_ID = 64,			/* elb_ids by TCP option */
	ELB_STABLE_UDP = 128,			/* elb_ids by the header of UDP stable routing */
	ELB_SECOND_CHANCE = 256,		/* a TCP flow that is not known for sure gets an alternate backend named */
};

/* Never changed while a service leads there: other options are another VIP. */
struct elb_vip {
	u32 options;
	u32 pool;
	u32 side;	/* 0 or 1: which of the two outer headers of its members */
	u32 hold;	/* ticks: how long an unknown packet of a moving slot is an old flow, and how long a silent flow is remembered */
};
_Static_assert(sizeof(struct elb_vip) == 16, "as in the schema");

/*
 * A slot's word: the member, and whether the slot is moving. In a settled slot nothing is looked up and nothing remembered. In a moving one flows may
 * be remembered that are not at its member. While it is holding, too (and not past the ring's `until`), a flow that is not remembered is an old
 * one, at elb_moves.previous.
 */
#define ELB_MEMBER 0x00ffffff
#define ELB_MOVING 0x80000000
#define ELB_HOLDING 0x40000000

struct elb_ring {
	u32 until;	/* tick at which the hold ends */
	u32 word[ELB_RING_SIZE];
};
_Static_assert(sizeof(struct elb_ring) == 262152, "as in the schema");

struct elb_moves {
	u32 previous[ELB_RING_SIZE];
	u32 needed[ELB_RING_SIZE];	/* tick until which a remembered flow that is not at the slot's member may live; the datapath raises it */
};
_Static_assert(sizeof(struct elb_moves) == 524296, "as in the schema");

enum elb_form {
	ELB_GUE = 1,		/* else IP in IP */
	ELB_OUTER6 = 2,		/* the outer header is IPv6 */
};

/* Key 2 * member + side. A side is never changed while a VIP uses it. Sums are of 16-bit words as they lie in memory, not folded. */
struct elb_member {
	__be32 destination[4];	/* outer; IPv4 in the first word */
	__be32 source[4];	/* outer, of GUE; else 0 */
	u32 ip_sum;		/* of an outer IPv4 header without TOS, total length, checksum; IPIP: without the source, too */
	u32 udp_sum;		/* of source, destination, protocol and UDP destination port; 0 for IPIP */
	u32 backend;		/* key in elb_hops */
	u32 pool;
	__be16 gue_port;
	u8 form;		/* enum elb_form */
	u8 overhead;		/* bytes: 20, 28, 40 or 48 */
};
_Static_assert(sizeof(struct elb_member) == 52, "as in the schema");

/* elb_states: incarnation << 2 | state. A number that is given to another backend has another incarnation. */
enum elb_state {
	ELB_GONE = 0,		/* free, removed, or down and to be left at once */
	ELB_UP = 1,
	ELB_DRAINING = 2,	/* keeps what it has */
};

struct elb_stats {
	u64 packets;
	u64 bytes;
	u64 flows;	/* SYNs */
};

struct elb_flow {
	__be32 source[4];	/* the client */
	__be32 destination[4];	/* the VIP's address in the packet */
	__be16 source_port;
	__be16 destination_port;
	u8 proto;
	u8 zero[3];
};
_Static_assert(sizeof(struct elb_flow) == 40, "as in the schema");

enum elb_phase {
	ELB_OPENING = 0,	/* nothing but SYNs so far */
	ELB_OPEN = 1,
	ELB_CLOSING = 2,	/* a FIN was seen */
	ELB_RESET = 3,
	ELB_PHASE = 7,			/* mask */
};

#define ELB_ALTERNATE_SHIFT 8	/* of a phase: above it is the other member that the flow may be at; 0: none */

struct elb_memory {
	u32 member;
	u32 incarnation;
	u32 seen;	/* tick of the last packet */
	u32 phase;	/* and the alternate */
};
_Static_assert(sizeof(struct elb_memory) == 16, "as in the schema");

struct elb_id {
	u32 pool;
	u32 id;
};

struct elb_source {
	u32 length;	/* bits: 32 + those of the (mapped) address */
	u32 pool;	/* of the VIP */
	__be32 address[4];
};
_Static_assert(sizeof(struct elb_source) == 24, "as in the schema");

struct elb_backend {
	u32 pool;
	__be32 address[4];
};

/* What elb_build makes a ring of, and how far it is. See ring.h; Python's ring.py writes it. */
struct elb_turn {
	u32 member;
	u32 sum;	/* (offset + j * skip) mod 2^32 for the next j */
	u32 skip;
	u32 inverse;	/* of the skip, modulo the size of the ring */
	u32 weight;	/* what the credit grows by in each round; a slot costs the largest weight */
	u32 credit;
	u32 more;	/* slots that the turn may take in this round beyond the one that it has paid for */
};

enum elb_stage {
	ELB_NEXT_TURN = 0,
	ELB_IN_TURN = 1,	/* looking for the slot that the turn takes */
	ELB_LIST = 2,		/* looking for the last slots */
	ELB_PICK = 3,		/* turns take these */
	ELB_MERGE = 4,
	ELB_DONE = 5,
};

struct elb_plan {
	u64 zero;		/* always 0, but the verifier does not know it: see ring.h */
	u64 taken;		/* slots so far */
	u32 pool;
	u32 members;		/* how many `turn` has: backends with weight, by their hash, ascending */
	u32 track;		/* 0: no slot ever moves */
	u32 hold;		/* ticks */
	u32 heaviest;		/* the largest weight */
	u32 stage;		/* enum elb_stage */
	u32 at;			/* the turn, or the slot */
	u32 rest;		/* the member of all slots that no turn has taken */
	u32 moving;		/* slots so far */
	u32 holding;
	u32 into;		/* where in elb_rings the ring is made: 0, or the pool itself while nothing leads there */
	u32 listed;		/* how many of the last slots are listed before they are taken: ELB_LAST_SLOTS, or 1 */
	u32 free;		/* how many `last` has */
	u32 looked;		/* slots that were looked at for it */
	struct elb_turn turn[ELB_POOL_MEMBERS];
	u32 last[ELB_LAST_SLOTS];	/* slots that no turn has taken yet */
};
_Static_assert(sizeof(struct elb_plan) == 115784, "as in the schema");

/* elb_progress: how far a pool's last change is; the routines write it */
struct elb_progress {
	u32 moving;
	u32 holding;
};

struct elb_pool {
	u64 name;	/* hash of what the pool is for; 0: free */
	u64 ring;	/* hash of what its ring was made of; 0: it is not, or somebody was about to change it */
	u64 moves;	/* 1: elb_moves has an element for it */
};

/*
 * An array of one large value. For each element of a table's leaf bcc compiles code that prints it, half a minute long for these: the leaf is bytes here,
 * which it prints as one string, and the type is told beside it.
 */
#define ELB_LARGE(_name, _type)							\
	struct _name##_table_t {						\
		u32 key;							\
		u8 leaf[sizeof(_type)];						\
		_type *(*lookup)(u32 *);					\
		u32 max_entries;						\
		int flags;							\
	};									\
	__attribute__((section("maps/array")))					\
	struct _name##_table_t _name = { .max_entries = BY_SCHEMA };		\
	BPF_ANNOTATE_KV_PAIR(_name, u32, _type)

BPF_TABLE("hash", struct elb_service, u32, elb_services, BY_SCHEMA);	/* -> elb_vips */
BPF_F_TABLE("lpm_trie", struct elb_prefix, u32, elb_prefixes, BY_SCHEMA, 1);	/* -> elb_vips */
BPF_TABLE("array", u32, u32, elb_gates, BY_SCHEMA);			/* one: enum elb_gate */
BPF_TABLE("array", u32, struct elb_vip, elb_vips, BY_SCHEMA);
ELB_LARGE(elb_ring, struct elb_ring);					/* the form of a ring */
BPF_ARRAY_OF_MAPS(elb_rings, "elb_ring", BY_SCHEMA);			/* pool -> ring; 0: the one that elb_build fills */
ELB_LARGE(elb_move, struct elb_moves);					/* the form of moves */
BPF_ARRAY_OF_MAPS(elb_moves, "elb_move", BY_SCHEMA);			/* pool -> moves, while slots of it are moving */
BPF_TABLE("array", u32, struct elb_member, elb_members, BY_SCHEMA);
BPF_TABLE("array", u32, u32, elb_states, BY_SCHEMA);			/* member -> state */
BPF_TABLE("percpu_array", u32, struct elb_stats, elb_stats, BY_SCHEMA);	/* member ->; the datapath writes */
BPF_TABLE("array", u32, u64, elb_hops, BY_SCHEMA);			/* backend -> 6 bytes MAC, 2 bytes MTU of the way (u16); 0: not known */
BPF_TABLE("lru_hash", struct elb_flow, struct elb_memory, elb_flows, BY_SCHEMA);	/* the datapath writes */
BPF_TABLE("hash", struct elb_id, u32, elb_ids, BY_SCHEMA);		/* -> member */
BPF_F_TABLE("lpm_trie", struct elb_source, u32, elb_sources, BY_SCHEMA, 1);	/* client's address -> pool */
ELB_LARGE(elb_plan, struct elb_plan);					/* one: for elb_build and elb_settle */
BPF_TABLE("array", u32, struct elb_progress, elb_progress, BY_SCHEMA);	/* by pool */

/* Where the config handler finds its numbers again. */
BPF_TABLE("array", u32, struct elb_pool, elb_pools, BY_SCHEMA);
BPF_TABLE("hash", struct elb_backend, u32, elb_directory, BY_SCHEMA);	/* backend of a pool -> member; pool 0: -> backend */

#endif
