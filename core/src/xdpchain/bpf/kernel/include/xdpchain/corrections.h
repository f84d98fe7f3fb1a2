/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* corrections.h: read after bcc's headers, before the unit; mends what bcc 0.26 declares wrongly. */
#ifndef XDPCHAIN_CORRECTIONS_H
#define XDPCHAIN_CORRECTIONS_H

/* The helper takes four arguments (bpf-helpers(7)); bcc's declaration lost one, so no call of it gets through the verifier. */
#define bpf_redirect_neigh(ifindex, params, plen, flags) \
	(((long (*)(u32, struct bpf_redir_neigh *, int, u64))BPF_FUNC_redirect_neigh)(ifindex, params, plen, flags))

#endif
